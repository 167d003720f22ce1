"""What the reward pays for, on Spider dev: right answers of published systems, and the golds' results by heart.

    python benchmarks/reward.py --data-root ../shared/data

A right answer is one that Spider's official scorer takes for right with DISTINCT kept. A cheat holds the gold's rows as
literals and joins a table that it makes no use of, so that no look at its text tells: for every distinct gold with 1 to
30 rows.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp

from tutelage.text2sql.reward import Attempt, Reward

SYSTEMS = ("gold", "codes-1b", "codes-15b", "din-gpt4", "c3-chatgpt", "gpt4-zero-shot")


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    root: Path = parser.parse_args().data_root
    dev = json.loads((root / "spider/dev.json").read_text())
    files = [root / f"spider/database/{item['db_id']}/{item['db_id']}.sqlite" for item in dev]
    with tempfile.TemporaryDirectory() as store, Reward(store=Path(store)) as reward:
        print("| answers | | paid | gold says nothing | taken for a cheat | other |\n|---|---:|---:|---:|---:|---:|")
        for name in SYSTEMS:
            found = json.loads((root / f"predictions/spider/{name}.json").read_text())
            right = found["official"]["exec_keep_distinct"]
            attempts = [
                Attempt(file, (item["query"],), sql)
                for item, file, sql, is_right in zip(dev, files, found["predictions"], right, strict=True)
                if is_right
            ]
            show(f"{name}, right ones", Counter(judged.outcome for judged in reward(attempts)))
        cheats = {
            (file, item["query"]): cheat(reward, file, item["query"])
            for item, file in zip(dev, files, strict=True)
            if 1 <= len(rows_of(reward, file, item["query"])) <= 30
        }
        attempts = [Attempt(file, (gold,), sql) for (file, gold), sql in cheats.items() if sql]
        show("cheats", Counter(judged.outcome for judged in reward(attempts)))


def rows_of(reward: Reward, file: Path, gold: str) -> list[tuple[Any, ...]]:
    """What a gold gives, if it gives any values: the gold as an attempt is judged by it."""
    rows = reward([Attempt(file, (gold,), gold)])[0].result.rows
    return rows if any(cell is not None for row in rows for cell in row) else []


def cheat(reward: Reward, file: Path, gold: str) -> str:
    """Write what a gold gives into a query that reads its first table for nothing."""
    rows = rows_of(reward, file, gold)
    table = next(found.name for found in sqlglot.parse_one(gold, dialect="sqlite").find_all(exp.Table))
    values = ", ".join(f"({', '.join(map(literal, row))})" for row in rows)
    return f"SELECT v.* FROM (VALUES {values}) AS v, (SELECT count(*) FROM {table})"


def literal(cell: Any) -> str:
    """Write a value as SQL does."""
    if cell is None or isinstance(cell, int | float):
        return "NULL" if cell is None else repr(cell)
    return "'" + str(cell).replace("'", "''") + "'"


def show(name: str, outcomes: Counter[str]) -> None:
    """Print a row."""
    total = outcomes.total()
    known = [outcomes[key] for key in ("right", "gold_says_nothing", "constant")]
    print(f"| {name} | {total} | {' | '.join(map(str, known))} | {total - sum(known)} |", flush=True)


if __name__ == "__main__":
    main()

"""Explore each Spider dev database without a model, and write results.csv and sample.md beside this file.

    python experiments/explore_spider/run.py out=<folder for the explorations> [<db_id> … | report]

Databases already explored in the folder are not explored again; ``report`` explores none and writes the files from
what is there. Spider is looked for under TUTELAGE_DATA.
"""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from math import comb
from pathlib import Path
from typing import TypeAlias

import pyarrow.parquet as pq
import sqlglot
from hydra import compose, initialize_config_dir

from tutelage.core.randomness import generator
from tutelage.core.store import Store
from tutelage.text2sql.database.catalog import Catalog, read_catalog
from tutelage.text2sql.database.executor import Executor, Limits
from tutelage.text2sql.explore import config
from tutelage.text2sql.explore.facts.gather import gather_facts
from tutelage.text2sql.explore.facts.roles import Roles
from tutelage.text2sql.explore.guard import plain
from tutelage.text2sql.explore.pair import Pair, read_pairs
from tutelage.text2sql.explore.pipeline import explore
from tutelage.text2sql.explore.synthesizers.naming import Naming

Projection: TypeAlias = tuple[str, frozenset[str], bool]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SPIDER = Path(os.environ.get("TUTELAGE_DATA", ROOT.parent / "shared" / "data")) / "spider"
# The study asks for all that a database gives: it ends when a thousand walks bring nothing.
WALKS, PATIENCE = 20_000, 1000
MAX_COLUMNS = 5  # that a plain projection lists
FULL = 200  # pairs of a level


def database(db_id: str) -> Path:
    """Where a Spider database lies."""
    return SPIDER / "database" / db_id / f"{db_id}.sqlite"


def explored(db_id: str, out: Path, gold: list[dict[str, str]]) -> Path:
    """Explore one database with the settings of conf/explore.yaml; its dev questions are guarded."""
    config.register()
    guard = out / f"guard_{db_id}.json"
    guard.parent.mkdir(parents=True, exist_ok=True)
    mine = [{"question": item["question"], "query": item["query"]} for item in gold if item["db_id"] == db_id]
    guard.write_text(json.dumps(mine), encoding="utf-8")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = [f"database='{database(db_id)}'", f"guard=['{guard}']", f"per_level={FULL}"]
        overrides += [f"walks={WALKS}", f"patience={PATIENCE}"]
        settings = config.explore_settings(compose("explore", overrides=overrides))
    return explore(settings, store=Store(out / "store"), out=out / db_id)


def listed_columns(catalog: Catalog, roles: Roles, naming: Naming) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each table with what may be listed of it, and which of these alone may be asked for as different values."""
    for table in catalog.tables:
        if table.num_rows and not naming.is_bridge(table.name):
            shown = [column.name for column in table.columns if roles.of(table.name, column.name).listed]
            profiles = {name: roles.of(table.name, name) for name in shown}
            yield (
                table.name,
                shown,
                [name for name in shown if not profiles[name].unique and profiles[name].role != "key"],
            )


def num_projections(catalog: Catalog, roles: Roles, naming: Naming) -> int:
    """How many queries level 1 can be: sets of up to MAX_COLUMNS columns of one table, and its different values."""
    total = sum(bool(table.num_rows) and naming.is_bridge(table.name) for table in catalog.tables)
    for _, shown, repeated in listed_columns(catalog, roles, naming):
        total += len(repeated) + sum(comb(len(shown), size) for size in range(1, MAX_COLUMNS + 1))
    return total


def projection_of(sql: str) -> Projection:
    """The table, the columns and whether they are DISTINCT, of a query of level 1."""
    tree = sqlglot.parse_one(sql, dialect="sqlite")
    tables, columns = tree.find_all(sqlglot.exp.Table), tree.find_all(sqlglot.exp.Column)
    return next(tables).name, frozenset(column.name for column in columns), bool(tree.args.get("distinct"))


def why_not(folder: Path, pairs: list[Pair], catalog: Catalog, roles: Roles, naming: Naming) -> str:
    """Why queries of level 1 that are possible were not accepted, each by the reason it met last."""
    taken = {projection_of(pair.sql) for pair in pairs}
    rejected = pq.read_table(folder / "rejected.parquet").to_pylist()
    # A repetition of what was accepted says nothing of a query that was not.
    met = {projection_of(row["sql"]): row["reason"] for row in rejected if row["level"] == 1}
    reasons: Counter[str] = Counter()
    for table, shown, repeated in listed_columns(catalog, roles, naming):
        sets = [frozenset(chosen) for size in range(1, MAX_COLUMNS + 1) for chosen in combinations(shown, size)]
        possible = [(table, chosen, False) for chosen in sets] + [(table, frozenset([one]), True) for one in repeated]
        reasons.update(met.get(query, "not drawn") for query in possible if query not in taken)
    return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))


def why_no_more(folder: Path, pairs: list[Pair], level: int) -> str:
    """Why the other queries that were proposed at a level were turned away, each by the reason it met last."""
    taken = {pair.sql for pair in pairs}
    rejected = pq.read_table(folder / "rejected.parquet").to_pylist()
    met = {row["sql"]: row["reason"] for row in rejected if row["level"] == level and row["sql"] not in taken}
    return ", ".join(f"{reason} {count}" for reason, count in sorted(Counter(met.values()).items()))


def rows_of(db_id: str, folder: Path, gold: list[dict[str, str]]) -> list[dict[str, object]]:
    """One row a level: what was accepted, and what an independent look at it finds."""
    pairs = read_pairs(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    catalog = read_catalog(database(db_id))
    questions = {plain(item["question"]) for item in gold}
    queries = {" ".join(item["query"].lower().split()) for item in gold}
    rows: list[dict[str, object]] = []
    with Executor(workers=0, limits=Limits()) as executor:
        facts = gather_facts(catalog, execute=lambda sql: executor.run(database(db_id), sql))
        roles = Roles(catalog, execute=lambda sql: executor.run(database(db_id), sql), facts=facts)
        naming = Naming(catalog, roles, facts)
        possible = num_projections(catalog, roles, naming)
        for level in range(1, 6):
            mine = [pair for pair in pairs if pair.level == level]
            ran = [executor.run(database(db_id), pair.sql) for pair in mine]
            why = ""
            if len(mine) < FULL:
                why = why_not(folder, mine, catalog, roles, naming) if level == 1 else why_no_more(folder, mine, level)
            rows.append(
                {
                    "db_id": db_id,
                    "level": level,
                    "pairs": len(mine),
                    "executable": sum(result.status == "ok" and bool(result.rows) for result in ran),
                    "gold_questions": sum(plain(pair.question) in questions for pair in mine),
                    "gold_queries": sum(" ".join(pair.sql.lower().split()) in queries for pair in mine),
                    "operators": " ".join(sorted({pair.operators[-1] for pair in mine if pair.operators})),
                    "walks": manifest["counts"]["walks"],
                    "ended": manifest["ended"],
                    "possible": possible if level == 1 else "",
                    "why_not": why,
                }
            )
    return rows


def sample(pairs: list[Pair], size: int) -> str:
    """Write random pairs to be read (those of seed 1 were read before, and mended)."""
    chosen = sorted(generator("explore_spider", "sample", 2).permutation(len(pairs))[:size].tolist())
    lines = ["# 50 random pairs", ""]
    for number, place in enumerate(chosen, start=1):
        pair = pairs[place]
        lines += [f"{number}. `{pair.db_id}`, level {pair.level} ({', '.join(pair.operators) or 'projection'})", ""]
        lines += [f"   {pair.question}", "", "   ```sql", f"   {pair.sql}", "   ```", ""]
    return "\n".join(lines)


def main() -> None:
    """Explore, look, write."""
    out = Path(next(part for part in sys.argv[1:] if part.startswith("out="))[4:])
    gold = json.loads((SPIDER / "dev.json").read_text(encoding="utf-8"))
    wanted = [part for part in sys.argv[1:] if not part.startswith("out=")]
    db_ids = list(dict.fromkeys(item["db_id"] for item in gold))
    for db_id in [] if wanted == ["report"] else wanted or db_ids:
        explored(db_id, out, gold)
    if wanted and wanted != ["report"]:
        return
    folders = {db_id: out / db_id for db_id in db_ids if (out / db_id / "manifest.json").exists()}
    rows = [row for db_id, folder in folders.items() for row in rows_of(db_id, folder, gold)]
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pairs = [pair for folder in folders.values() for pair in read_pairs(folder)]
    (HERE / "sample.md").write_text(sample(pairs, 50), encoding="utf-8")
    for db_id in folders:
        mine = [row for row in rows if row["db_id"] == db_id]
        counts = " | ".join(str(row["pairs"]) for row in mine)
        print(f"| {db_id} | {counts} | {mine[0]['possible']} | {mine[0]['why_not']} | {mine[0]['walks']} |")
    print(f"{len(pairs)} pairs, {sum(int(str(row['executable'])) for row in rows)} run to rows; "
          f"gold questions {sum(int(str(row['gold_questions'])) for row in rows)}, "
          f"gold queries {sum(int(str(row['gold_queries'])) for row in rows)}")  # fmt: skip


if __name__ == "__main__":
    main()

"""report.html of an exploration: what it teaches, what it never reached, and what was turned away."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tutelage.core.store import write_atomically
from tutelage.core.templates import render_page
from tutelage.text2sql.database.schema import Catalog, ForeignKey
from tutelage.text2sql.explore.drawing import MAX_TABLES, draw_graph
from tutelage.text2sql.explore.facts.fact import Fact
from tutelage.text2sql.explore.facts.store import LIKELY, Facts
from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.outcome import Outcome, Rejected
from tutelage.text2sql.explore.pair import OPERATORS, Pair

EXAMPLES = 4  # pairs shown a level
NEVER = 200  # columns named that were never reached
FACTS = 1000  # shown


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the pairs teach.

    Attributes:
        columns: Pairs that use each (table, column); 0 where it was never reached.
        joins: Pairs in which the tables of a key stand together, and the columns of the key.
        operators: Pairs with each operator.
    """

    columns: dict[tuple[str, str], int]
    joins: dict[ForeignKey, int]
    operators: dict[str, int]


def coverage_of(outcome: Outcome, catalog: Catalog) -> Coverage:
    """Count what the accepted pairs use."""
    named = {
        f"{table.name}.{column.name}": (table.name, column.name) for table in catalog.tables for column in table.columns
    }
    columns = dict.fromkeys(named.values(), 0)
    joins = dict.fromkeys(catalog.foreign_keys, 0)
    operators = dict.fromkeys(OPERATORS, 0)
    sides = {
        key: {(key.table, name) for name in key.columns} | {(key.referred_table, name) for name in key.referred_columns}
        for key in joins
    }
    for pair in outcome.pairs:
        used = {named[name] for name in pair.columns if name in named}
        for column in used:
            columns[column] += 1
        for key, both in sides.items():
            joins[key] += both <= used
        for operator in OPERATORS:
            operators[operator] += operator in pair.operators
    return Coverage(columns, joins, {str(name): count for name, count in operators.items()})


def write_report(path: Path, *, outcome: Outcome, catalog: Catalog, graph: Graph, facts: Facts) -> None:
    """Write the report; it holds no time and no path, so that the same exploration gives the same bytes."""
    coverage = coverage_of(outcome, catalog)
    curve = informative(outcome)
    never = [f"{table}.{column}" for (table, column), count in coverage.columns.items() if not count]
    levels = sorted({pair.level for pair in outcome.pairs})
    html = render_page(
        "tutelage.text2sql.explore",
        "report.html.jinja",
        db_id=catalog.db_id,
        outcome=outcome,
        num_columns=graph.num_nodes,
        num_tables=graph.num_tables,
        num_undrawn=max(0, graph.num_tables - MAX_TABLES),
        drawing=draw_graph(catalog, coverage.columns),
        coverage=coverage,
        never=never[:NEVER],
        num_never=len(never),
        levels=[(level, _examples(level, outcome.pairs)) for level in levels],
        level_counts=Counter(pair.level for pair in outcome.pairs),
        samplers=sorted(Counter(pair.sampler for pair in outcome.pairs).items()),
        reasons=_reasons(outcome.rejected),
        informative=curve,
        most_informative=max((kept + lost for _, kept, lost in curve), default=1),
        notes=catalog.notes,
        facts=_shown_facts(facts),
        num_facts=len(facts),
        likely=LIKELY,
    )
    write_atomically(path, html)


def informative(outcome: Outcome) -> list[tuple[int, int, int]]:
    """Count questions by how many of a model's independent answers were right.

    Returns:
        For each number of right answers: it, the questions that became pairs, and those that were turned away since
        too few agree. Empty where no model was asked.
    """
    turned_away = [
        (int(found[1]), int(found[2]))
        for item in outcome.rejected
        if item.reason == "disagreed" and (found := re.match(r"(\d+) of (\d+) answers", item.detail))
    ]
    solved = [pair.solved for pair in outcome.pairs if pair.solved is not None]
    if not turned_away and not solved:
        return []
    # All were asked the same number of times; where none was turned away, take the smallest number that fits.
    asked = (
        turned_away[0][1] if turned_away else next(n for n in range(1, 1001) if all(_is_whole(n * s) for s in solved))
    )
    kept = Counter(round(share * asked) for share in solved)
    lost = Counter(right for right, _ in turned_away)
    return [(right, kept[right], lost[right]) for right in range(asked + 1)]


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-2  # shares are kept with four digits


def _shown_facts(facts: Facts) -> list[tuple[str, list[Fact]]]:
    """Facts by table, without what is shorter to read elsewhere: roles and distributions."""
    shown = [fact for fact in facts if fact.kind not in ("distribution", "role")][:FACTS]
    return [(table, list(own)) for table, own in groupby(shown, key=lambda fact: fact.subject.table)]


def _examples(level: int, pairs: list[Pair]) -> list[Pair]:
    """Take pairs of a level, evenly spaced, so that early and late walks are shown."""
    own = [pair for pair in pairs if pair.level == level]
    count = min(EXAMPLES, len(own))
    return [own[place * len(own) // count] for place in range(count)]


def _reasons(rejected: list[Rejected]) -> list[tuple[str, int, Rejected]]:
    """Count rejections by reason, most frequent first, each with its first example."""
    first: dict[str, Rejected] = {}
    for item in rejected:
        first.setdefault(item.reason, item)
    counts = Counter(item.reason for item in rejected)
    return [
        (reason, count, first[reason]) for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item))
    ]

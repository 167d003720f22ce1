"""Whether independent answers to a question agree with its query: on the data, and on perturbed copies of it.

The answers come from whoever sees the question alone: a model that is asked several times, or people. OmniSQL and
others vote in this way on the data itself; copies tell answers apart that its rows do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlglot import exp

from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.explore.filter import Rejection
from tutelage.text2sql.explore.verify.mutants import quoted, write
from tutelage.text2sql.explore.verify.perturb import Copies
from tutelage.text2sql.explore.verify.planting import planting
from tutelage.text2sql.explore.verify.same import same

RunAll = Callable[[Path, Sequence[str]], list[Result]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many answers agree with a pair's query, of how many; and the first that does not."""

    agreed: int
    asked: int
    other: str | None


def agreement(
    tree: exp.Query,
    *,
    answers: Sequence[str],
    catalog: Catalog,
    copies: Copies,
    database: Path,
    run_all: RunAll,
) -> Agreement:
    """Compare each answer's result with the query's.

    An answer agrees if it gives the same rows on the data and on every perturbed copy on which the query runs. The
    order of columns is free; that of rows counts where the query orders them.

    Args:
        tree: The pair's query, qualified against the catalog.
        answers: Of somebody who saw the question alone; an empty one agrees with nothing.
        catalog: Of the database.
        copies: Made of it.
        database: The file.
        run_all: Runs statements on a file in the sandbox.
    """
    own, planted = write(quoted(tree)), planting(tree, catalog)
    ordered = tree.args.get("order") is not None
    agreeing = set(range(len(answers)))
    for path in (*copies.perturbed, database):
        into = (lambda sql: sql) if path == database else planted.into
        # Equal answers are run once; what is no query gives an error, as an empty one does.
        distinct = {sql: into(sql) for sql in dict.fromkeys(answers)}
        result, *found = run_all(path, [into(own), *distinct.values()])
        results = dict(zip(distinct, found, strict=True))
        others = [results[sql] for sql in answers]
        if result.status != "ok":
            if path == database:
                agreeing = set()
            continue
        agreeing &= {
            place
            for place, other in enumerate(others)
            if other.status == "ok" and same(result, other, ordered=ordered, any_column_order=True)
        }
    other = next((sql for place, sql in enumerate(answers) if place not in agreeing), None)
    return Agreement(len(agreeing), len(answers), other)


def enough(found: Agreement, *, agree: int) -> Rejection | None:
    """Refuse a pair that fewer than ``agree`` answers agree with."""
    if found.agreed >= agree:
        return None
    return Rejection("disagreed", f"{found.agreed} of {found.asked} answers agree; one that does not: {found.other}")

"""Judges whether rows can tell a pair's query from queries that mean something else.

A pair is *tested* when every mutant of its query gives another result on a perturbed copy or on the data. Where one
does not, rows cannot tell the query from one that means something else, and neither could a scorer or a reader.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlglot import exp

from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.explore.filter import Rejection
from tutelage.text2sql.explore.verify.agreement import Agreement, RunAll, agreement
from tutelage.text2sql.explore.verify.mutants import Mutant, mutants, quoted, write
from tutelage.text2sql.explore.verify.perturb import Copies
from tutelage.text2sql.explore.verify.planting import planting
from tutelage.text2sql.explore.verify.row_order import may_depend_on_order
from tutelage.text2sql.explore.verify.same import same


class Verifier:
    """Verifies pairs of one database; what it says of a pair depends on the pair alone."""

    def __init__(
        self, catalog: Catalog, *, copies: Copies, database: Path, run_all: RunAll, mutants: bool = True
    ) -> None:
        """Keep what is needed.

        Args:
            catalog: Of the database.
            copies: Made of it.
            database: The file.
            run_all: Runs statements on a file in the sandbox, within the time of one query together.
            mutants: Whether :meth:`meaning` looks for mutants.
        """
        self._with_mutants = mutants
        self._catalog = catalog
        self._copies = copies
        self._database = database
        self._run_all = run_all

    def meaning(self, tree: exp.Query) -> Rejection | None:
        """Refuse a query whose result depends on the order of rows, or that a mutant cannot be told from."""
        if may_depend_on_order(tree) and (doubt := self._row_order(tree, self._copies)):
            return doubt
        return self._mutants(tree, self._copies) if self._with_mutants else None

    def agreement(self, tree: exp.Query, answers: Sequence[str]) -> Agreement:
        """Compare a query, qualified against the catalog, with independent answers to its question."""
        return agreement(
            tree,
            answers=answers,
            catalog=self._catalog,
            copies=self._copies,
            database=self._database,
            run_all=self._run_all,
        )

    def _row_order(self, tree: exp.Query, copies: Copies) -> Rejection | None:
        unlimited = quoted(tree)
        unlimited.set("limit", None)  # ties at the limit are the filter's matter, on all rows
        if unlimited.find(exp.Limit):
            return None
        sql = write(unlimited)
        one, other = self._run_all(copies.sample, [sql])[0], self._run_all(copies.shuffled, [sql])[0]
        if one.status == other.status == "ok" and not same(one, other, ordered=False):
            return Rejection("row_order", "another result where rows are stored in another order")
        return None

    def _mutants(self, tree: exp.Query, copies: Copies) -> Rejection | None:
        tree = quoted(tree)
        left = mutants(tree, self._catalog)
        own, planted = write(tree), planting(tree, self._catalog)
        ordered = tree.args.get("order") is not None
        late, ran = False, False
        # The copies first: they are small, and few mutants come as far as the data.
        for path in (*copies.perturbed, self._database):
            if not left:
                return None
            into = (lambda sql: sql) if path == self._database else planted.into
            result, *others = self._run_all(path, [into(own), *(into(mutant.sql) for mutant in left)])
            if result.status == "timeout":
                return Rejection("timeout", "while its query was compared with mutants")
            if result.status != "ok":
                continue
            ran = True
            late = any(other.status == "timeout" for other in others)
            left = [mutant for mutant, other in zip(left, others, strict=True) if not _differs(result, other, ordered)]
        if left and not ran:
            return Rejection("untestable", f"it does not run as {own}")
        if left and late:
            return Rejection("timeout", f"while it was compared with {left[0].name}")
        return Rejection("untestable", _named(left)) if left else None


def _differs(result: Result, other: Result, ordered: bool) -> bool:
    if other.status == "timeout":
        return False
    # A mutant that fails is no query that somebody could mean.
    return other.status != "ok" or not same(result, other, ordered=ordered)


def _named(left: Sequence[Mutant]) -> str:
    return f"gives the same as {left[0].name}" + (f" and {len(left) - 1} more" if len(left) > 1 else "")

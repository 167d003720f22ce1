"""What a candidate must pass to become a pair; every rejection keeps its reason.

The questions put, cheapest first: is it one SELECT that fits the catalog; does the question speak of what the query
names; is it new, and none of the guarded; does it run, within limits, to a result that answers something.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema

from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.schema import DIALECTS, Catalog
from tutelage.text2sql.explore.guard import Guard, canonical, plain
from tutelage.text2sql.explore.meaning import contradiction, idle_part
from tutelage.text2sql.explore.pair import Candidate, Pair
from tutelage.text2sql.explore.reading import mapping_schema
from tutelage.text2sql.explore.spoken import (
    Question,
    literals,
    named_columns,
    resolve,
    says_column,
    says_number,
    says_text,
)
from tutelage.text2sql.explore.verify.shown import not_shown

__all__ = ["Accepted", "Guard", "Reason", "Rejection", "Seen", "check"]

Reason = Literal[
    "not_select",  # not one statement that only reads
    "does_not_parse",
    "does_not_fit",  # names a table or a column that the catalog does not have, or that two tables have
    "guarded_question",  # an evaluation question, or nearly one
    "guarded_query",
    "duplicate_question",
    "duplicate_query",
    "duplicate_template",  # the query of another pair with other values
    "duplicate_result",  # the same columns give the same rows in another pair
    "idle_part",  # a condition that is the same for every row, a join that ties nothing, chance
    "contradiction",  # the question says one thing, the query does another
    "unspoken_literal",
    "unspoken_column",
    "fails",
    "timeout",
    "too_large",
    "empty",  # no rows, or a count of nothing
    "all_null",
    "constant",  # many rows that are all the same, or no column asked for
    "limit_over_ties",  # which rows LIMIT keeps is for the database to choose
    "limit_keeps_all",  # there are no more rows than LIMIT keeps: "the three … among" two
    "row_order",  # the result changes when rows are stored in another order
    "untestable",  # a query that means something else gives the same everywhere
    "no_question",  # a model was asked to say the question as people do, and did not
    "disagreed",  # too few independent answers to the question agree
    "not_native",  # in the database's own dialect it fails, or gives other rows
    "error",  # a fault of ours while it was proposed or checked
    "no_effect",  # the operator added changes nothing of the parent's result
]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a candidate is no pair; ``detail`` is for a reader."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was learnt of a candidate on its way; plain JSON, so that ``Seen`` can be filled again from a file."""

    columns: tuple[str, ...]  # "table.column", as the catalog writes them, sorted
    tables: tuple[str, ...]
    rows: int
    query: str  # the query without aliases and spelling
    template: str  # the same without its values
    result: str  # fingerprint of the rows, in order where the query orders them
    answer: str  # fingerprint of the rows and of the columns they were made from

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Accepted":
        """Read back what ``dataclasses.asdict`` wrote."""
        return cls(**{**record, "columns": tuple(record["columns"]), "tables": tuple(record["tables"])})


class Verify(Protocol):
    """What looks at the meaning of a query, which is qualified against the catalog."""

    def meaning(self, tree: exp.Query) -> Rejection | None:
        """Refuse what shows when other queries are run beside it."""


class Native(Protocol):
    """Runs queries in the database's own dialect, on the database itself."""

    def refuse(self, sql: str, result: Result) -> str | None:
        """Say what is wrong with a query there, given what it gives here; None for nothing."""


class Seen:
    """What was accepted so far, as far as a newcomer may not repeat it."""

    def __init__(self, *, per_template: int = 1) -> None:
        """Begin with nothing.

        Args:
            per_template: Queries that may differ in their values alone.
        """
        self._per_template = per_template
        self._questions: set[str] = set()
        self._queries: set[str] = set()
        self._templates: Counter[str] = Counter()
        self._answers: set[str] = set()
        self._results: dict[str, str] = {}

    def note(self, sql: str, question: str, accepted: Accepted) -> None:
        """Take over an accepted pair."""
        self._questions.add(plain(question))
        self._queries.add(accepted.query)
        self._templates[accepted.template] += 1
        self._answers.add(accepted.answer)
        self._results[sql] = accepted.result

    def forget(self, sql: str, question: str, accepted: Accepted) -> None:
        """Take back what was noted of a pair that was turned away after all."""
        self._questions.discard(plain(question))
        self._queries.discard(accepted.query)
        self._templates[accepted.template] -= 1
        self._answers.discard(accepted.answer)
        self._results.pop(sql, None)

    def question(self, question: str) -> bool:
        """Whether the question was asked before."""
        return plain(question) in self._questions

    def query(self, query: str) -> bool:
        """Whether the query was accepted before."""
        return query in self._queries

    def template(self, template: str) -> bool:
        """Whether enough queries have this template."""
        return self._templates[template] >= self._per_template

    def answer(self, answer: str) -> bool:
        """Whether the same rows were made from the same columns before."""
        return answer in self._answers

    def result_of(self, sql: str) -> str | None:
        """The fingerprint of an accepted query's result."""
        return self._results.get(sql)


def check(
    candidate: Candidate,
    *,
    parent: Pair | None,
    catalog: Catalog,
    execute: Callable[[str], Result],
    guard: Guard,
    seen: Seen,
    verify: Verify | None = None,
    mention: bool = True,
    native: Native | None = None,
) -> Accepted | Rejection:
    """Check one candidate; an accepted one is noted in ``seen``.

    Args:
        candidate: A question and its SQL.
        parent: The pair it extends.
        catalog: What the SQL must fit.
        execute: Runs SQL in the sandbox, within limits.
        guard: What must not be learnt.
        seen: What was accepted before.
        verify: Looks at its meaning; None for nobody.
        mention: Whether the question must name each value and column of the query: what a question means is told by
            that where nobody answers it.
        native: Runs it in the database's own dialect; None where that is SQLite's.
    """
    if seen.question(candidate.question):
        return Rejection("duplicate_question", candidate.question)
    if meeting := guard.question(candidate.question):
        return Rejection("guarded_question", f"{'nearly ' if meeting.near else ''}{meeting.what}")
    tree = _parse(candidate.sql, catalog)
    if isinstance(tree, Rejection):
        return tree
    shape = canonical(tree)
    query, template = shape.sql(dialect="sqlite"), _template(shape)
    if seen.query(query):
        return Rejection("duplicate_query", query)
    if seen.template(template):
        return Rejection("duplicate_template", template)
    if meeting := guard.query(shape):
        return Rejection("guarded_query", f"{'nearly ' if meeting.near else ''}{meeting.what}")
    fitted = _fit(tree, catalog)
    if isinstance(fitted, Rejection):
        return fitted
    if idle := idle_part(fitted):
        return Rejection("idle_part", idle)
    if wrong := contradiction(candidate.question, fitted):
        return Rejection("contradiction", wrong)
    if mention and (unspoken := _unspoken(candidate.question, fitted, catalog)):
        return unspoken
    if hidden := not_shown(candidate.question, fitted, catalog):
        return Rejection("contradiction", hidden)
    used = _used(fitted, catalog)
    if not used[1]:
        return Rejection("constant", "no table is asked")
    result = execute(candidate.sql)
    if answerless := _answerless(result, tree):
        return answerless
    ordered = tree.args.get("order") is not None
    rows = _fingerprint(result, ordered=ordered)
    if parent is not None and candidate.operators[-1:] != ("order",) and seen.result_of(parent.sql) == rows:
        return Rejection("no_effect", f"the result is that of {parent.sql}")
    answer = hashlib.sha256(f"{used}{rows}".encode()).hexdigest()[:24]
    if seen.answer(answer):
        return Rejection("duplicate_result", f"another pair has these rows from {', '.join(used[0])}")
    if badly := _limited_badly(tree, catalog, execute):
        return badly
    if verify is not None and (doubt := verify.meaning(fitted)):
        return doubt
    if native is not None and (foreign := native.refuse(candidate.sql, result)):
        return Rejection("not_native", foreign)
    accepted = Accepted(used[0], used[1], len(result.rows), query, template, rows, answer)
    seen.note(candidate.sql, candidate.question, accepted)
    return accepted


def check_wording(question: str, sql: str, *, catalog: Catalog, guard: Guard, seen: Seen) -> Rejection | None:
    """Check other words for the question of a query that was accepted."""
    if seen.question(question):
        return Rejection("duplicate_question", question)
    if meeting := guard.question(question):
        return Rejection("guarded_question", f"{'nearly ' if meeting.near else ''}{meeting.what}")
    if wrong := contradiction(question, fitted_query(sql, catalog)):
        return Rejection("contradiction", wrong)
    return None


def fitted_query(sql: str, catalog: Catalog) -> exp.Query:
    """Read a query that was accepted, qualified against the catalog."""
    tree = _parse(sql, catalog)
    fitted = tree if isinstance(tree, Rejection) else _fit(tree, catalog)
    assert isinstance(fitted, exp.Query), "it was accepted before"
    return fitted


def _parse(sql: str, catalog: Catalog) -> exp.Query | Rejection:
    try:
        parsed = sqlglot.parse(sql, dialect=DIALECTS[catalog.dialect].sqlglot)
        statements = [statement for statement in parsed if statement]
    except (SqlglotError, RecursionError) as error:
        return Rejection("does_not_parse", str(error).splitlines()[0] if str(error) else type(error).__name__)
    if len(statements) != 1:
        return Rejection("not_select", f"{len(statements)} statements")
    tree = statements[0]
    if not isinstance(tree, exp.Query) or tree.find(exp.Insert, exp.Update, exp.Delete, exp.Create, exp.Drop, exp.Into):
        return Rejection("not_select", type(tree).__name__)
    return tree


def _template(shape: exp.Expr) -> str:
    masked = shape.copy()
    for literal in list(masked.find_all(exp.Literal)):
        literal.replace(exp.Placeholder())
    return masked.sql(dialect="sqlite", copy=False)


_SCHEMAS: dict[int, tuple[Catalog, MappingSchema]] = {}


def _schema(catalog: Catalog) -> MappingSchema:
    """The catalog as sqlglot wants it, made once."""
    kept = _SCHEMAS.get(id(catalog))
    if kept is None or kept[0] is not catalog:
        _SCHEMAS.clear()
        kept = (catalog, mapping_schema(catalog))
        _SCHEMAS[id(catalog)] = kept
    return kept[1]


def _fit(tree: exp.Query, catalog: Catalog) -> exp.Query | Rejection:
    """Qualify every column against the catalog."""
    known = {table.name.lower() for table in catalog.tables}
    lowered = tree.copy()
    for identifier in lowered.find_all(exp.Identifier):
        # Names compare whatever their case, quoted or not, as in SQLite.
        identifier.set("this", identifier.this.lower())
    steps = {step.alias_or_name for step in lowered.find_all(exp.CTE)}
    for table in lowered.find_all(exp.Table):
        if table.name not in known | steps:
            return Rejection("does_not_fit", f"no table {table.name}")
    try:
        fitted = qualify(
            lowered,
            schema=_schema(catalog),
            dialect=DIALECTS[catalog.dialect].sqlglot,
            identify=False,
            quote_identifiers=False,
            expand_stars=True,
            validate_qualify_columns=True,
        )
        assert isinstance(fitted, exp.Query)
        return fitted
    except (SqlglotError, RecursionError) as error:
        return Rejection("does_not_fit", str(error).splitlines()[0] if str(error) else type(error).__name__)


def _unspoken(question: str, fitted: exp.Expr, catalog: Catalog) -> Rejection | None:
    asked = Question.read(question)
    for literal, column in literals(fitted, catalog):
        value = str(literal.this)
        said = says_text(asked, value, column) if literal.is_string else says_number(asked, float(value))
        if not said:
            return Rejection("unspoken_literal", value)
    for column in named_columns(fitted, catalog):
        if not says_column(asked, column):
            return Rejection("unspoken_column", f"{column.table}.{column.name}")
    return None


def _used(fitted: exp.Expr, catalog: Catalog) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The catalog's columns and tables in a qualified query."""
    found = {resolve(node, catalog) for node in fitted.find_all(exp.Column)}
    names = {table.name.lower(): table.name for table in catalog.tables}
    steps = {step.alias_or_name for step in fitted.find_all(exp.CTE)}
    tables = {
        names[table.name] for table in fitted.find_all(exp.Table) if table.name in names and table.name not in steps
    }
    columns = {f"{names[column.table.lower()]}.{column.name}" for column in found if column is not None}
    return tuple(sorted(columns)), tuple(sorted(tables))


def _answerless(result: Result, tree: exp.Query) -> Rejection | None:
    """What a result lacks to be an answer."""
    match result.status:
        case "ok":
            pass
        case "timeout":
            return Rejection("timeout", result.error)
        case "too_large":
            return Rejection("too_large", result.error)
        case "refused":
            return Rejection("not_select", result.error)
        case _:
            return Rejection("fails", result.error)
    if not result.rows:
        return Rejection("empty", "no rows")
    cells = [cell for row in result.rows for cell in row]
    if all(cell is None or cell == "" for cell in cells):
        return Rejection("all_null", f"{len(result.rows)} rows without a value")
    if len(result.rows) == 1 and all(cell in (0, None) for cell in cells) and tree.find(exp.AggFunc):
        return Rejection("empty", "a count or a sum of nothing")
    if len(result.rows) > 1 and len({repr(row) for row in result.rows}) == 1:
        return Rejection("constant", f"{len(result.rows)} times {result.rows[0]!r}")
    return None


def _fingerprint(result: Result, *, ordered: bool) -> str:
    lines = [repr(row) for row in result.rows]
    text = "\n".join(lines if ordered else sorted(lines))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _limited_badly(tree: exp.Query, catalog: Catalog, execute: Callable[[str], Result]) -> Rejection | None:
    """Whether some LIMIT cuts nothing off, or cuts between rows that its ORDER BY does not tell apart."""
    dialect = DIALECTS[catalog.dialect].sqlglot
    for part in [tree, *tree.find_all(exp.Select)]:
        limit, order = part.args.get("limit"), part.args.get("order")
        if limit is None or not isinstance(limit.expression, exp.Literal):
            continue
        try:
            kept = int(limit.expression.this)
        except ValueError:
            return Rejection("fails", f"LIMIT {limit.expression.this} is no whole number")
        wider = part.copy()
        wider.args["limit"].set("expression", exp.Literal.number(kept + 1))
        if order is not None and isinstance(wider, exp.Select) and not wider.args.get("distinct"):
            # The sort keys alone tell whether the last row kept and the first row cut are equal.
            aliases = {shown.alias: shown.this for shown in wider.expressions if isinstance(shown, exp.Alias)}
            keys = [_unaliased(key.this, aliases, wider) for key in wider.args["order"].expressions]
            if None in keys:
                return Rejection("limit_over_ties", "ORDER BY a position of SELECT *, which cannot be checked for ties")
            wider.set("expressions", [exp.alias_(key.copy(), f"key{index}") for index, key in enumerate(keys) if key])
        if part is not tree and tree.args.get("with_") is not None and part.find_ancestor(exp.CTE) is None:
            wider.set("with_", tree.args["with_"].copy())
        result = execute(wider.sql(dialect=dialect))
        if result.status != "ok":
            continue  # it cannot be run by itself
        if len(result.rows) <= kept:
            return Rejection("limit_keeps_all", f"LIMIT {kept} of {len(result.rows)} rows")
        if order is None:
            return Rejection("limit_over_ties", f"LIMIT {kept} without an order")
        if result.rows[kept - 1] == result.rows[kept]:
            return Rejection("limit_over_ties", f"{result.rows[kept]!r} stands on both sides of LIMIT {kept}")
    return None


def _unaliased(key: exp.Expr, aliases: Mapping[str, exp.Expr], select: exp.Select) -> exp.Expr | None:
    if isinstance(key, exp.Column) and not key.table and key.name in aliases:
        return aliases[key.name]
    if isinstance(key, exp.Literal) and not key.is_string:
        if select.is_star or not key.is_int or not 1 <= int(key.this) <= len(select.expressions):
            return None
        unaliased: exp.Expr = select.expressions[int(key.this) - 1].unalias()
        return unaliased
    return key

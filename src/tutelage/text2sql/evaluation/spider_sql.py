"""Spider's SQL grammar, as the official scorer reads it.

Exact match and hardness are defined on the trees of one particular hand-written parser
(taoyds/test-suite-sql-eval, process_sql.py). This is a parser of our own for the same language: it accepts what that
one accepts, quirks included, because whether a prediction parses at all decides its score. The quirks that matter
are said where they are made.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

AGGREGATES = ("none", "max", "min", "count", "sum", "avg")
CONDITION_OPERATORS = ("not", "between", "=", ">", "<", ">=", "<=", "!=", "in", "like", "is", "exists")
ARITHMETIC = ("none", "-", "+", "*", "/")
SET_OPERATIONS = ("intersect", "union", "except")
_CLAUSES = frozenset({"select", "from", "where", "group", "order", "limit", *SET_OPERATIONS})
_JOIN_WORDS = frozenset({"join", "on", "as"})
_CLOSERS = frozenset({")", ";"})
ALL_COLUMNS = "*"


class SpiderSyntaxError(Exception):
    """The text is not in Spider's SQL."""


@dataclass(frozen=True, slots=True, eq=False)  # by identity, so that it can be a key
class Schema:
    """The names of a database in lower case: columns by table."""

    tables: Mapping[str, Sequence[str]]


class ColumnUse(NamedTuple):
    """``COUNT(DISTINCT t.a)``. ``column`` is ``table.column`` or ``*``; ``distinct`` None: no matter."""

    aggregate: int
    column: str
    distinct: bool | None


class Expression(NamedTuple):
    """One column, or two joined by an arithmetic operator."""

    operator: int
    left: ColumnUse
    right: ColumnUse | None


class Condition(NamedTuple):
    """``a NOT BETWEEN first AND second``."""

    negated: bool
    operator: int
    left: Expression
    first: "Value"
    second: "Value"


class Selected(NamedTuple):
    """One item of SELECT; its aggregate stands outside of the expression: ``max(a - b)``."""

    aggregate: int
    expression: Expression


class FromUnit(NamedTuple):
    """A table's name or a subquery."""

    kind: str
    unit: "str | Sql"


# Conditions at even places and "and"/"or" at odd ones. A missing connective shifts all that follows: the official
# parser lets that pass, and everything that reads such a list reads it by even and odd.
Conditions = list[Condition | str]


# Equality is by value and there is no hash: just like the dicts of the official scorer.
@dataclass(slots=True)
class Sql:
    """A query's tree."""

    select_distinct: bool | None = False
    select: list[Selected] = field(default_factory=list)
    from_units: list[FromUnit] = field(default_factory=list)
    from_conditions: Conditions = field(default_factory=list)
    where: Conditions = field(default_factory=list)
    group_by: list[ColumnUse] = field(default_factory=list)
    having: Conditions = field(default_factory=list)
    order_by: tuple[str, list[Expression]] | None = None
    limit: bool = False
    intersect: "Sql | None" = None
    union: "Sql | None" = None
    except_: "Sql | None" = None

    @property
    def set_operands(self) -> tuple["Sql | None", "Sql | None", "Sql | None"]:
        """What follows INTERSECT, EXCEPT and UNION."""
        return self.intersect, self.except_, self.union


Value = float | str | ColumnUse | Sql | None


@lru_cache(maxsize=4096)  # golds come again with each system, and in both modes
def parse(text: str, schema: Schema) -> Sql:
    """Parse a query. The tree is shared: leave it as it is.

    What follows a complete query is passed over, as the official parser does.

    Raises:
        SpiderSyntaxError: It is not in the grammar, or names what the schema has not.
    """
    try:
        return _Parser(tokenize(text), schema).query()
    except (IndexError, KeyError) as error:
        raise SpiderSyntaxError(
            "ends too early" if isinstance(error, IndexError) else f"unknown name {error}"
        ) from error
    except RecursionError:
        raise SpiderSyntaxError("nested too deeply") from None


# ---- tokens -----------------------------------------------------------------------------------------------------

_QUOTED = re.compile(r'"[^"]*"')
# The official tokenizer is NLTK's word_tokenize, made for English prose. Quotes are out of the way before it runs, so
# of its rules only these are left. They are applied one after the other, and each sees what the one before left.
_FINAL_PERIOD = re.compile(r"(?<=[^.])\.(?=[\])}>»”’\s]*$)")
_SPACED_APART = (
    (re.compile(r"[«“‘„]|`+"), r" \g<0> "),
    (re.compile(r"``"), r" \g<0> "),
    (_FINAL_PERIOD, " . "),
    # Takes the character behind it along: of ",,x" only the first comma is set apart.
    (re.compile(r"([:,])(\D)"), r" \1 \2"),
    (re.compile(r"[:,]$"), r" \g<0> "),
    (re.compile(r"\.{2,}"), r" \g<0> "),
    (re.compile(r"[;@#$%&?!*\[\](){}<>»”’]|--"), r" \g<0> "),
    (
        re.compile(r"\b(can)(not)\b|\b(gim)(me)\b|\b(gon)(na)\b|\b(got)(ta)\b|\b(lem)(me)\b|\b(wan)(na)(?=\s|$)", re.I),
        lambda match: f" {' '.join(filter(None, match.groups()))} ",
    ),
)
# A period before white space or one of these ends an English sentence and becomes a token of its own, unless it
# belongs to a number and a small letter or another mark follows ("1. and"). So ``T1.*`` falls apart.
_SENTENCE_END = re.compile(r"(?<=[^.\s])\.(?=[)\";}\]*:@'({\[!?]|\s+(\S))")
_NUMBER = re.compile(r"(?:^|[\s()\[\]{}*:;@!?])-?[.,]?\d[\d,.-]*$")


def tokenize(text: str) -> list[str]:
    """Split a query into the official scorer's tokens: in lower case, strings whole and as written.

    Raises:
        SpiderSyntaxError: A quote is not closed. Both kinds count as one, so an apostrophe in a string is an error.
    """
    text = text.replace("'", '"')
    if text.count('"') % 2:
        raise SpiderSyntaxError("a quote without its partner")
    strings: dict[str, str] = {}

    def put_aside(match: re.Match[str]) -> str:
        key = f"__val_{match.start()}_{match.end() - 1}__"
        strings[key] = match.group()
        return key

    # A string that touches anything else is no token of its own any more, and is lost: so it is there too.
    text = _split_sentences(_QUOTED.sub(put_aside, text))
    for pattern, replacement in _SPACED_APART:
        text = pattern.sub(replacement, text)
    tokens = [strings.get(token, token) for token in text.lower().split()]
    return _join_comparisons(tokens)


def _split_sentences(text: str) -> str:
    def split(match: re.Match[str]) -> str:
        follower = match.group(1)
        goes_on = follower is not None and (follower.islower() or follower in ";:,.!?")
        ordinal = goes_on and _NUMBER.search(text, 0, match.start())
        return "." if ordinal else " . "

    return _SENTENCE_END.sub(split, text) if "." in text else text


def _join_comparisons(tokens: list[str]) -> list[str]:
    """``>`` ``=`` → ``>=``: also where the query has a blank between them."""
    joined: list[str] = []
    for token in tokens:
        if token == "=" and joined and joined[-1] in ("!", ">", "<"):
            joined[-1] += "="
        else:
            joined.append(token)
    return joined


# ---- grammar ----------------------------------------------------------------------------------------------------


class _Parser:
    """Recursive descent. Running off the end or naming the unknown raises IndexError or KeyError."""

    def __init__(self, tokens: list[str], schema: Schema) -> None:
        self._tokens = tokens
        self._schema = schema
        # Every "x as y" anywhere in the text, also behind the query's end, and the last one of a name wins.
        self._tables: dict[str, str] = {}
        for index, token in enumerate(tokens):
            if token == "as":
                self._tables[tokens[index + 1]] = tokens[index - 1]
        for table in schema.tables:
            _require(table not in self._tables, f"alias {table} has the name of a table")
            self._tables[table] = table

    def query(self) -> Sql:
        return self._query(0)[1]

    def _at(self, index: int, words: Collection[str]) -> bool:
        return index < len(self._tokens) and self._tokens[index] in words

    def _ends(self, index: int) -> bool:
        """Whether a list ends here: at a clause, a bracket, a semicolon or the end of the text."""
        return index >= len(self._tokens) or self._tokens[index] in _CLAUSES or self._tokens[index] in _CLOSERS

    def _query(self, start: int) -> tuple[int, Sql]:
        tokens = self._tokens
        bracketed = tokens[start] == "("
        # FROM is read first, since it says which tables a plain column can be of.
        index, sql, tables = self._from(start)
        self._select(start + bracketed, sql, tables)
        if self._at(index, ("where",)):
            index, sql.where = self._conditions(index + 1, tables)
        index, sql.group_by = self._group_by(index, tables)
        if self._at(index, ("having",)):
            index, sql.having = self._conditions(index + 1, tables)
        index, sql.order_by = self._order_by(index, tables)
        if self._at(index, ("limit",)):
            index, sql.limit = index + 2, True
        index = self._skip_semicolons(index)
        if bracketed:
            _require(tokens[index] == ")", "a bracket is not closed")
            index = self._skip_semicolons(index + 1)
        if self._at(index, SET_OPERATIONS):
            operation = tokens[index]
            index, operand = self._query(index + 1)
            match operation:
                case "intersect":
                    sql.intersect = operand
                case "union":
                    sql.union = operand
                case _:
                    sql.except_ = operand
        return index, sql

    def _skip_semicolons(self, index: int) -> int:
        while self._at(index, (";",)):
            index += 1
        return index

    def _from(self, start: int) -> tuple[int, Sql, list[str]]:
        tokens = self._tokens
        try:
            # The next FROM in the text, whatever it belongs to.
            index = tokens.index("from", start) + 1
        except ValueError:
            raise SpiderSyntaxError("no FROM") from None
        sql = Sql()
        tables: list[str] = []
        while index < len(tokens):
            bracketed = tokens[index] == "("
            index += bracketed
            if tokens[index] == "select":
                index, subquery = self._query(index)
                sql.from_units.append(FromUnit("sql", subquery))
            else:
                index += tokens[index] == "join"
                table = self._tables[tokens[index]]
                _require(table in self._schema.tables, f"no table {table}")
                index += 3 if self._at(index + 1, ("as",)) else 1
                sql.from_units.append(FromUnit("table_unit", table))
                tables.append(table)
            if self._at(index, ("on",)):
                index, conditions = self._conditions(index + 1, tables)
                if sql.from_conditions:
                    sql.from_conditions.append("and")
                sql.from_conditions.extend(conditions)
            if bracketed:
                _require(tokens[index] == ")", "a bracket is not closed")
                index += 1
            if self._ends(index):
                break
        return index, sql, tables

    def _select(self, index: int, sql: Sql, tables: Sequence[str]) -> None:
        tokens = self._tokens
        _require(tokens[index] == "select", "no SELECT")
        index += 1
        if self._at(index, ("distinct",)):
            sql.select_distinct = True
            index += 1
        while index < len(tokens) and tokens[index] not in _CLAUSES:
            aggregate = 0
            if tokens[index] in AGGREGATES:
                aggregate = AGGREGATES.index(tokens[index])
                index += 1
            index, expression = self._expression(index, tables)
            sql.select.append(Selected(aggregate, expression))
            index += self._at(index, (",",))

    def _group_by(self, index: int, tables: Sequence[str]) -> tuple[int, list[ColumnUse]]:
        columns: list[ColumnUse] = []
        if not self._at(index, ("group",)):
            return index, columns
        _require(self._tokens[index + 1] == "by", "GROUP without BY")
        index += 2
        while not self._ends(index):
            index, column = self._column_use(index, tables)
            columns.append(column)
            if not self._at(index, (",",)):
                break
            index += 1
        return index, columns

    def _order_by(self, index: int, tables: Sequence[str]) -> tuple[int, tuple[str, list[Expression]] | None]:
        if not self._at(index, ("order",)):
            return index, None
        _require(self._tokens[index + 1] == "by", "ORDER without BY")
        index += 2
        direction = "asc"  # one for the whole list: the last that is given
        expressions: list[Expression] = []
        while not self._ends(index):
            index, expression = self._expression(index, tables)
            expressions.append(expression)
            if self._at(index, ("desc", "asc")):
                direction = self._tokens[index]
                index += 1
            if not self._at(index, (",",)):
                break
            index += 1
        return index, (direction, expressions)

    def _conditions(self, index: int, tables: Sequence[str]) -> tuple[int, Conditions]:
        tokens = self._tokens
        conditions: Conditions = []
        while index < len(tokens):
            index, left = self._expression(index, tables)
            negated = tokens[index] == "not"
            index += negated
            _require(tokens[index] in CONDITION_OPERATORS, f"no condition at {tokens[index]}")
            operator = tokens[index]
            index, first = self._value(index + 1, tables)
            second: Value = None
            if operator == "between":
                _require(tokens[index] == "and", "BETWEEN without AND")
                index, second = self._value(index + 1, tables)
            conditions.append(Condition(negated, CONDITION_OPERATORS.index(operator), left, first, second))
            if self._ends(index) or tokens[index] in _JOIN_WORDS:
                break
            if tokens[index] in ("and", "or"):
                conditions.append(tokens[index])
                index += 1
        return index, conditions

    def _value(self, start: int, tables: Sequence[str]) -> tuple[int, Value]:
        tokens = self._tokens
        bracketed = tokens[start] == "("
        index = start + bracketed
        value: Value
        if tokens[index] == "select":
            index, value = self._query(index)
        elif '"' in tokens[index]:
            index, value = index + 1, tokens[index]
        else:
            try:
                index, value = index + 1, float(tokens[index])
            except ValueError:
                index, value = self._column_value(start, index, tables)
        if bracketed:
            _require(tokens[index] == ")", "a bracket is not closed")
            index += 1
        return index, value

    def _column_value(self, start: int, index: int, tables: Sequence[str]) -> tuple[int, ColumnUse]:
        """A column as a value, and with it everything up to the next end: ``a = b or c = d`` is one condition."""
        tokens = self._tokens
        while index < len(tokens) and tokens[index] not in (",", ")", "and", *_CLAUSES, *_JOIN_WORDS):
            index += 1
        return index, self._column_use(start, tables, end=index)[1]

    def _expression(self, index: int, tables: Sequence[str]) -> tuple[int, Expression]:
        tokens = self._tokens
        bracketed = tokens[index] == "("
        index, left = self._column_use(index + bracketed, tables)
        operator, right = 0, None
        if self._at(index, ARITHMETIC):
            operator = ARITHMETIC.index(tokens[index])
            index, right = self._column_use(index + 1, tables)
        if bracketed:
            _require(tokens[index] == ")", "a bracket is not closed")
            index += 1
        return index, Expression(operator, left, right)

    def _column_use(self, index: int, tables: Sequence[str], *, end: int | None = None) -> tuple[int, ColumnUse]:
        tokens = self._tokens if end is None else self._tokens[:end]
        bracketed = tokens[index] == "("
        index += bracketed
        aggregate, distinct = 0, False
        if tokens[index] in AGGREGATES:
            aggregate = AGGREGATES.index(tokens[index])
            _require(tokens[index + 1] == "(", "an aggregate without its bracket")
            index += 2
            if tokens[index] == "distinct":
                index, distinct = index + 1, True
            column = self._column(tokens[index], tables)
            _require(tokens[index + 1] == ")", "a bracket is not closed")
            # A bracket around the aggregate is left open: whoever comes next stumbles over it.
            return index + 2, ColumnUse(aggregate, column, distinct)
        if tokens[index] == "distinct":
            index, distinct = index + 1, True
        column = self._column(tokens[index], tables)
        index += 1
        if bracketed:
            _require(tokens[index] == ")", "a bracket is not closed")
            index += 1
        return index, ColumnUse(aggregate, column, distinct)

    def _column(self, token: str, tables: Sequence[str]) -> str:
        if token == ALL_COLUMNS:
            return token
        if "." in token:
            alias, _, name = token.partition(".")
            table = self._tables[alias]
            known = table in self._schema.tables and name in self._schema.tables[table]
            _require(known and "." not in name, f"no column {token}")
            return f"{table}.{name}"
        for table in tables:
            if token in self._schema.tables[table]:
                return f"{table}.{token}"
        raise SpiderSyntaxError(f"no column {token}")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SpiderSyntaxError(otherwise)

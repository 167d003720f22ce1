"""Other spellings of queries that Spider's grammar could say, brought into that grammar.

INNER JOIN, aliases without AS, names of output columns, quoted names, ``<>``, operators without blanks around them
and the like are no other query, but the official parser knows none of them. What Spider's grammar has no way to say
(outer joins, lists of values, NULL, functions, CTEs, windows) stays out.
"""

from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tutelage.text2sql.evaluation.spider_sql import Schema

_AGGREGATES: dict[type[exp.Expr], str] = {
    exp.Max: "max",
    exp.Min: "min",
    exp.Count: "count",
    exp.Sum: "sum",
    exp.Avg: "avg",
}
_ARITHMETIC: dict[type[exp.Expr], str] = {exp.Sub: "-", exp.Add: "+", exp.Mul: "*", exp.Div: "/"}
_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "!=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.Like: "like",
}
_SET_OPERATIONS: dict[type[exp.Expr], str] = {
    exp.Union: "union",
    exp.Intersect: "intersect",
    exp.Except: "except",
}


class _Unsayable(Exception):
    """Spider's grammar has no form for it."""


def spider_form(sql: str, schema: Schema) -> str | None:
    """Write a query in Spider's grammar, or give None where that cannot be done."""
    try:
        return _Writer(schema).query(sqlglot.parse_one(sql, dialect="sqlite"), {})
    except (_Unsayable, SqlglotError, RecursionError):
        return None


Aliases = Mapping[str, exp.Expr]


class _Writer:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._columns = {column for columns in schema.tables.values() for column in columns}

    def query(self, node: exp.Expr, outer: Aliases) -> str:
        if type(node) in _SET_OPERATIONS:
            assert isinstance(node, exp.SetOperation)
            _need(bool(node.args.get("distinct")))  # UNION ALL
            operation = _SET_OPERATIONS[type(node)]
            sides = [self.query(side, outer) for side in (node.left, node.right)]
            return f"{sides[0]} {operation} {sides[1]}{self._order(node, outer)}"
        if isinstance(node, exp.Subquery):
            return self.query(node.this, outer)
        _need(isinstance(node, exp.Select) and not node.args.get("with_") and not node.args.get("windows"))
        aliases = {item.alias.lower(): item.this for item in node.expressions if isinstance(item, exp.Alias)}
        parts = ["select", "distinct" if node.args.get("distinct") else ""]
        parts.append(" , ".join(self._expression(item.unalias(), {}) for item in node.expressions))
        parts.append(self._from(node))
        if where := node.args.get("where"):
            parts.append(f"where {self._condition(where.this, {})}")
        if group := node.args.get("group"):
            parts.append("group by " + " , ".join(self._expression(item, aliases) for item in group.expressions))
        if having := node.args.get("having"):
            parts.append(f"having {self._condition(having.this, aliases)}")
        return " ".join(filter(None, parts)) + self._order(node, aliases)

    def _from(self, node: exp.Expr) -> str:
        source = node.args.get("from_")
        if source is None:
            raise _Unsayable
        parts = ["from", self._source(source.this)]
        for join in node.args.get("joins") or []:
            _need(not join.side and join.kind in ("", "INNER", "CROSS") and not join.method)
            parts.append(f"join {self._source(join.this)}")
            if on := join.args.get("on"):
                parts.append(f"on {self._condition(on, {})}")
        return " ".join(parts)

    def _source(self, node: exp.Expr) -> str:
        if isinstance(node, exp.Subquery):
            return f"( {self.query(node.this, {})} )"  # a name of its own cannot be said
        _need(isinstance(node, exp.Table))
        name, alias = node.name.lower(), node.alias.lower()
        return f"{name} as {alias}" if alias not in ("", name) else name

    def _order(self, node: exp.Expr, aliases: Aliases) -> str:
        text = ""
        if order := node.args.get("order"):
            items = [
                self._expression(item.this, aliases) + (" desc" if item.args.get("desc") else "")
                for item in order.expressions
            ]
            text += " order by " + " , ".join(items)
        if limit := node.args.get("limit"):
            text += f" limit {limit.expression.sql()}"
        return text

    def _condition(self, node: exp.Expr, aliases: Aliases) -> str:
        if isinstance(node, exp.Paren):
            return self._condition(node.this, aliases)
        if isinstance(node, exp.And | exp.Or):
            word = "and" if isinstance(node, exp.And) else "or"
            return f"{self._condition(node.left, aliases)} {word} {self._condition(node.right, aliases)}"
        negated = isinstance(node, exp.Not)
        inner = node.this if negated else node
        left = self._expression(inner.this, aliases) + (" not" if negated else "")
        if isinstance(inner, exp.Between):
            low, high = (self._value(inner.args[end], aliases) for end in ("low", "high"))
            return f"{left} between {low} and {high}"
        if isinstance(inner, exp.In):
            query = inner.args.get("query")
            if query is None:
                raise _Unsayable
            return f"{left} in ( {self.query(query, aliases)} )"
        operator = _COMPARISONS.get(type(inner))
        _need(operator is not None and (not negated or operator == "like"))
        return f"{left} {operator} {self._value(inner.expression, aliases)}"

    def _value(self, node: exp.Expr, aliases: Aliases) -> str:
        if isinstance(node, exp.Subquery):
            return f"( {self.query(node.this, aliases)} )"
        if isinstance(node, exp.Literal):
            return _string(node.name) if node.is_string else node.name
        if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal):
            return f"-{node.this.name}"
        if isinstance(node, exp.Column) and self._is_text(node):
            return _string(node.name)
        return self._expression(node, aliases)

    def _expression(self, node: exp.Expr, aliases: Aliases) -> str:
        if type(node) in _AGGREGATES:
            _need(not node.args.get("expressions"))
            return f"{_AGGREGATES[type(node)]} ( {self._argument(node.this, aliases)} )"
        if type(node) in _ARITHMETIC:
            assert isinstance(node, exp.Binary)
            sides = [self._expression(side.unnest(), aliases) for side in (node.left, node.right)]
            return f"{sides[0]} {_ARITHMETIC[type(node)]} {sides[1]}"
        if isinstance(node, exp.Paren):
            return self._expression(node.this, aliases)
        if isinstance(node, exp.Star):
            return "*"
        _need(isinstance(node, exp.Column) and not isinstance(node.this, exp.Star))
        name = node.name.lower()
        if not node.args.get("table") and name not in self._columns and name in aliases:
            return self._expression(aliases[name], {})
        return f"{node.text('table').lower()}.{name}" if node.args.get("table") else name

    def _argument(self, node: exp.Expr, aliases: Aliases) -> str:
        if isinstance(node, exp.Distinct):
            _need(len(node.expressions) == 1)
            return f"distinct {self._expression(node.expressions[0], aliases)}"
        return self._expression(node, aliases)

    def _is_text(self, column: exp.Column) -> bool:
        """SQLite takes a name in double quotes that is no column's for a text."""
        quoted = bool(column.this.args.get("quoted"))
        return quoted and not column.args.get("table") and column.name.lower() not in self._columns


def _string(text: str) -> str:
    return '"' + text.replace('"', "").replace("'", "") + '"'


def _need(condition: bool) -> None:
    if not condition:
        raise _Unsayable

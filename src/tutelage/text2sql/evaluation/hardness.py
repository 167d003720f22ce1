"""Spider's four levels of hardness, from the gold query alone (taoyds/test-suite-sql-eval, evaluation.py)."""

from collections.abc import Iterator
from typing import Literal

from tutelage.text2sql.evaluation.spider_sql import CONDITION_OPERATORS, Condition, Sql

Hardness = Literal["easy", "medium", "hard", "extra"]
LEVELS: tuple[Hardness, ...] = ("easy", "medium", "hard", "extra")
_LIKE = CONDITION_OPERATORS.index("like")


def hardness(sql: Sql, *, strict: bool = False) -> Hardness:
    """Grade a gold query.

    Args:
        sql: Its tree.
        strict: Count as aggregates only aggregates. Officially every NOT in WHERE or HAVING, and every AND and OR in
            HAVING, counts as one.
    """
    clauses, nested, others = _clauses(sql), _nested(sql), _others(sql, strict)
    if clauses <= 1 and others == 0 and nested == 0:
        return "easy"
    if nested == 0 and ((others <= 2 and clauses <= 1) or (clauses <= 2 and others < 2)):
        return "medium"
    if nested == 0 and ((others > 2 and clauses <= 2) or (2 < clauses <= 3 and others <= 2)):
        return "hard"
    if clauses <= 1 and others == 0 and nested <= 1:
        return "hard"
    return "extra"


def _conditions(sql: Sql) -> Iterator[Condition]:
    for items in (sql.from_conditions, sql.where, sql.having):
        for item in items[::2]:
            if isinstance(item, str):
                raise ValueError("a connective where a condition should be")
            yield item


def _clauses(sql: Sql) -> int:
    connectives = [*sql.from_conditions[1::2], *sql.where[1::2], *sql.having[1::2]]
    return (
        bool(sql.where)
        + bool(sql.group_by)
        + (sql.order_by is not None)
        + sql.limit
        + max(len(sql.from_units) - 1, 0)
        + connectives.count("or")
        + sum(condition.operator == _LIKE for condition in _conditions(sql))
    )


def _nested(sql: Sql) -> int:
    values = sum(
        isinstance(value, Sql) for condition in _conditions(sql) for value in (condition.first, condition.second)
    )
    return values + sum(operand is not None for operand in sql.set_operands)


def _others(sql: Sql, strict: bool) -> int:
    ordered = sql.order_by[1] if sql.order_by else []
    aggregates = sum(item.aggregate > 0 for item in sql.select)
    aggregates += sum(column.aggregate > 0 for column in sql.group_by)
    aggregates += sum(use.aggregate > 0 for item in ordered for use in (item.left, item.right) if use)
    if strict:
        conditions = [item for item in (*sql.where, *sql.having) if isinstance(item, Condition)]
        aggregates += sum(use.aggregate > 0 for item in conditions for use in (item.left.left, item.left.right) if use)
        aggregates += sum(
            use.aggregate > 0 for item in sql.select for use in (item.expression.left, item.expression.right) if use
        )
    else:
        aggregates += sum(isinstance(item, str) or item.negated for item in sql.where[::2])
        aggregates += sum(isinstance(item, str) or item.negated for item in sql.having)
    return (aggregates > 1) + (len(sql.select) > 1) + (len(sql.where) > 1) + (len(sql.group_by) > 1)

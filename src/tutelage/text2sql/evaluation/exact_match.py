"""Spider's exact-set match: two queries have the same parts, whatever their values.

Ours, after the definition of the official scorer (taoyds/test-suite-sql-eval, evaluation.py), which compares ten
parts as bags and then the tables. Its oddities belong to the number, so they are kept here and named where they
are; `strict_match` is the same comparison without them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tutelage.text2sql.evaluation.spider_sql import (
    CONDITION_OPERATORS,
    ColumnUse,
    Condition,
    Conditions,
    Expression,
    Schema,
    Selected,
    SpiderSyntaxError,
    Sql,
    Value,
    parse,
)

KeyMap = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Match:
    """The outcome of one comparison.

    Attributes:
        score: 1 for a match.
        parses: Whether the prediction is in Spider's grammar; if not, it is compared as a query without parts.
        failed: The parts that differ, under the official names; ``tables`` for FROM.
        raises: What the official scorer dies of at this pair, or empty. The score is then 0.
    """

    score: int
    parses: bool
    failed: tuple[str, ...]
    raises: str = ""


def exact_match(predicted: str, gold: Sql, *, schema: Schema, keys: KeyMap) -> Match:
    """Compare a prediction with a parsed gold, as the official scorer does.

    Args:
        predicted: The query's text.
        gold: From `spider_sql.parse`.
        schema: Of the database.
        keys: Columns that count as another one, from `key_map`.
    """
    try:
        tree, parses = parse(predicted.replace("value", "1"), schema), True
    except SpiderSyntaxError:
        tree, parses = Sql(), False
    try:
        ours, theirs = (comparable(sql, keys) for sql in (tree, gold))
        failed = failed_parts(ours, theirs)
        if not failed and not _same_tables(ours, theirs):
            failed = ("tables",)
    # The official comparison raises on subqueries that cannot be ordered or hashed, and on conditions that stand
    # where a connective should.
    except (TypeError, ValueError) as error:
        return Match(0, parses, (), type(error).__name__)
    return Match(int(not failed), parses, failed)


def key_map(entry: Mapping[str, Any]) -> dict[str, str]:
    """Which columns are one through foreign keys: each to the first of its group.

    Groups are collected in the order of the keys and never merged, so two groups that a later key connects stay two.

    Args:
        entry: A database's entry in ``tables.json``.
    """
    tables = entry["table_names_original"]
    names = ["*" if t < 0 else f"{tables[t]}.{column}".lower() for t, column in entry["column_names_original"]]
    groups: list[set[int]] = []
    for pair in entry["foreign_keys"]:
        group = next((group for group in groups if group & set(pair)), None)
        if group is None:
            groups.append(group := set())
        group.update(pair)
    return {names[column]: names[min(group)] for group in groups for column in sorted(group)}


def failed_parts(predicted: Sql, gold: Sql) -> tuple[str, ...]:
    """The names of the parts that differ, in the official order. Raises like the official comparison."""
    parts = {
        "select": same_bag(predicted.select, gold.select),
        "select(no AGG)": same_bag(*([item.expression for item in sql.select] for sql in (predicted, gold))),
        "where": same_bag(predicted.where[::2], gold.where[::2]),
        "where(no OP)": same_bag(*([_condition(item).left for item in sql.where[::2]] for sql in (predicted, gold))),
        # Without the table: t1.name and t2.name are one here.
        "group(no Having)": same_bag(
            *([use.column.rpartition(".")[2] for use in sql.group_by] for sql in (predicted, gold))
        ),
        "group": _same_group(predicted, gold),
        "order": _same_order(predicted, gold),
        "and/or": set(predicted.where[1::2]) == set(gold.where[1::2]),
        "IUEN": all(map(_same_operand, predicted.set_operands, gold.set_operands)),
        "keywords": keywords(predicted) == keywords(gold),
    }
    return tuple(name for name, same in parts.items() if not same)


def keywords(sql: Sql) -> set[str]:
    """The keywords that the official scorer looks for."""
    found = {
        name
        for name, there in (
            ("where", sql.where),
            ("group", sql.group_by),
            ("having", sql.having),
            ("limit", sql.limit),
            ("intersect", sql.intersect),
            ("union", sql.union),
            ("except", sql.except_),
        )
        if there
    }
    if sql.order_by:
        found |= {"order", sql.order_by[0]}
    lists = (sql.from_conditions, sql.where, sql.having)
    if any("or" in conditions[1::2] for conditions in lists):
        found.add("or")
    for condition in (_condition(item) for conditions in lists for item in conditions[::2]):
        if condition.negated:
            found.add("not")
        if (operator := CONDITION_OPERATORS[condition.operator]) in ("in", "like"):
            found.add(operator)
    return found


def same_bag(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether two lists have the same items, in any order."""
    rest = list(theirs)  # trees have no hash, and there are few
    for item in ours:
        if item not in rest:
            return False
        rest.remove(item)
    return not rest


def _same_group(ours: Sql, theirs: Sql) -> bool:
    if not ours.group_by or not theirs.group_by:
        return not ours.group_by and not theirs.group_by
    same_columns = [use.column for use in ours.group_by] == [use.column for use in theirs.group_by]
    return same_columns and ours.having == theirs.having


def _same_order(ours: Sql, theirs: Sql) -> bool:
    if theirs.order_by is None:
        return ours.order_by is None
    return ours.order_by == theirs.order_by and ours.limit == theirs.limit


def _same_operand(ours: Sql | None, theirs: Sql | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return not failed_parts(ours, theirs) and _same_tables(ours, theirs)


def _same_tables(ours: Sql, theirs: Sql) -> bool:
    if not theirs.from_units:
        return True
    # Two unlike subqueries have no order: TypeError.
    gold: list[Any] = list(theirs.from_units)
    predicted: list[Any] = list(ours.from_units)
    return sorted(gold) == sorted(predicted)


def _condition(item: Condition | str) -> Condition:
    if isinstance(item, str):
        raise ValueError("a connective where a condition should be")
    return item


# ---- values aside, foreign keys as one, DISTINCT aside ------------------------------------------------------------


def comparable(sql: Sql, keys: KeyMap) -> Sql:
    """What is left of a query for the comparison."""
    return _with_one_name(
        _without_values(sql), keys, {unit.unit for unit in sql.from_units if isinstance(unit.unit, str)}
    )


def _without_values(sql: Sql) -> Sql:
    """Values aside, in the subqueries of conditions too; those of FROM keep theirs."""
    return replace(
        sql,
        from_conditions=_conditions_without_values(sql.from_conditions),
        where=_conditions_without_values(sql.where),
        having=_conditions_without_values(sql.having),
        intersect=sql.intersect and _without_values(sql.intersect),
        union=sql.union and _without_values(sql.union),
        except_=sql.except_ and _without_values(sql.except_),
    )


def _conditions_without_values(conditions: Conditions) -> Conditions:
    def bare(value: Value) -> Value:
        return _without_values(value) if isinstance(value, Sql) else None

    rebuilt: Conditions = []
    for place, item in enumerate(conditions):
        if place % 2 == 0:
            condition = _condition(item)
            rebuilt.append(condition._replace(first=bare(condition.first), second=bare(condition.second)))
        else:
            rebuilt.append(item)
    return rebuilt


def _with_one_name(sql: Sql, keys: KeyMap, tables: set[str]) -> Sql:
    """Name columns of ``tables`` after their group, and forget DISTINCT: not in any subquery, only in set operands.

    ``tables`` stays that of the first operand throughout.
    """

    def use(column: ColumnUse) -> ColumnUse:
        known = column.column.partition(".")[0] in tables
        return ColumnUse(column.aggregate, keys.get(column.column, column.column) if known else column.column, None)

    def expression(old: Expression) -> Expression:
        return Expression(old.operator, use(old.left), old.right and use(old.right))

    def conditions(old: Conditions) -> Conditions:
        return [
            _condition(item)._replace(left=expression(_condition(item).left)) if place % 2 == 0 else item
            for place, item in enumerate(old)
        ]

    def operand(old: Sql | None) -> Sql | None:
        return old and _with_one_name(old, keys, tables)

    return Sql(
        select_distinct=None,
        select=[Selected(item.aggregate, expression(item.expression)) for item in sql.select],
        from_units=sql.from_units,
        from_conditions=conditions(sql.from_conditions),
        where=conditions(sql.where),
        group_by=[use(column) for column in sql.group_by],
        having=conditions(sql.having),
        order_by=sql.order_by and (sql.order_by[0], [expression(old) for old in sql.order_by[1]]),
        limit=sql.limit,
        intersect=operand(sql.intersect),
        union=operand(sql.union),
        except_=operand(sql.except_),
    )

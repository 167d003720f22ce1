"""Exact-set match without the official scorer's oddities."""

from contextlib import suppress
from dataclasses import replace

from tutelage.text2sql.evaluation.exact_match import KeyMap, Match, comparable, failed_parts, same_bag
from tutelage.text2sql.evaluation.spider_sql import (
    Condition,
    Conditions,
    FromUnit,
    Schema,
    SpiderSyntaxError,
    Sql,
    Value,
    parse,
)


def exact_match_strict(predicted: str, gold: Sql, *, schema: Schema, keys: KeyMap) -> tuple[Match, bool]:
    """Compare a prediction with a parsed gold as a careful person would.

    Beside the official comparison (`exact_match.exact_match`): a query that is only spelled in ways that Spider's
    grammar has not is respelled; the word ``value`` stays; subqueries are treated like the queries around them
    (values masked, DISTINCT aside, foreign keys as one); several subqueries in FROM are compared.

    Returns:
        The match, and whether the prediction had to be respelled.
    """
    repaired = False
    try:
        tree, parses = parse(predicted, schema), True
    except SpiderSyntaxError:
        from tutelage.text2sql.evaluation.spider_form import spider_form  # sqlglot takes long to load

        tree, parses = Sql(), False
        respelled = spider_form(predicted, schema)
        if respelled is not None:
            with suppress(SpiderSyntaxError):  # a name that the database has not
                tree, parses, repaired = parse(respelled, schema), True, True
    try:
        ours, theirs = _comparable_throughout(tree, keys), _comparable_throughout(gold, keys)
        failed = failed_parts(ours, theirs)
        if not failed and not same_bag(ours.from_units, theirs.from_units):
            failed = ("tables",)
    except (TypeError, ValueError) as error:  # a connective is missing among the conditions
        return Match(0, parses, (), type(error).__name__), repaired
    return Match(int(not failed), parses, failed), repaired


def _comparable_throughout(sql: Sql, keys: KeyMap) -> Sql:
    return _with_subqueries(comparable(sql, keys), keys)


def _with_subqueries(bare: Sql, keys: KeyMap) -> Sql:
    """Treat the subqueries of a query that has been treated itself."""

    def value(old: Value) -> Value:
        return _comparable_throughout(old, keys) if isinstance(old, Sql) else old

    def conditions(old: Conditions) -> Conditions:
        return [
            item._replace(first=value(item.first), second=value(item.second)) if isinstance(item, Condition) else item
            for item in old
        ]

    def operand(old: Sql | None) -> Sql | None:
        return old and _with_subqueries(old, keys)

    return replace(
        bare,
        from_units=[
            FromUnit(kind, _comparable_throughout(unit, keys) if isinstance(unit, Sql) else unit)
            for kind, unit in bare.from_units
        ],
        from_conditions=conditions(bare.from_conditions),
        where=conditions(bare.where),
        having=conditions(bare.having),
        intersect=operand(bare.intersect),
        union=operand(bare.union),
        except_=operand(bare.except_),
    )

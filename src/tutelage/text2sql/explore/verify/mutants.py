"""Queries that mean something else than a query: one small change each, with a name that a report can say.

Mutants that the schema proves to be equal to their query are not made: DISTINCT over a key, COUNT of a column that
cannot be NULL, LEFT JOIN along a key that always has a partner. The operators are those of mutation testing for SQL
(Tuya et al., "Mutating database queries", Information and Software Technology 49, 2007).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.dialects.sqlite import SQLite

from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey
from tutelage.text2sql.explore.spoken import resolve


@dataclass(frozen=True, slots=True)
class Mutant:
    """A query, and what was changed: ``MAX for MIN``."""

    name: str
    sql: str


_OTHER_AGGREGATES: dict[type[exp.Expr], tuple[type[exp.Expr], ...]] = {
    exp.Min: (exp.Max,),
    exp.Max: (exp.Min,),
    exp.Sum: (exp.Avg, exp.Count),
    exp.Avg: (exp.Sum, exp.Count),
}
# The first is the same but for the boundary, the second the other way round.
_OTHER_COMPARISONS: dict[type[exp.Expr], tuple[type[exp.Expr], type[exp.Expr]]] = {
    exp.GT: (exp.GTE, exp.LT),
    exp.GTE: (exp.GT, exp.LTE),
    exp.LT: (exp.LTE, exp.GT),
    exp.LTE: (exp.LT, exp.GTE),
}
_SYMBOLS: dict[type[exp.Expr], str] = {
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.EQ: "=",
    exp.NEQ: "<>",
}
_SETS: dict[type[exp.SetOperation], str] = {exp.Union: "UNION", exp.Intersect: "INTERSECT", exp.Except: "EXCEPT"}
_COUNTED = 3  # the largest group size whose boundary is tested
_REAL = (exp.Avg, exp.Sum, exp.Div, exp.Round)


def write(tree: exp.Expr) -> str:
    """Write a query for SQLite; the tree is left as it is."""
    return SQLite().generator().generate(tree, copy=False)


def quoted(tree: exp.Query) -> exp.Query:
    """A copy with every name in quotes: qualifying gives a table called order the alias order."""
    copied = tree.copy()
    for identifier in copied.find_all(exp.Identifier):
        identifier.set("quoted", True)
    return copied


def mutants(tree: exp.Query, catalog: Catalog) -> list[Mutant]:
    """Change a query in one place at a time.

    Args:
        tree: Qualified against the catalog. It is changed on the way and is the same again at the end.
        catalog: What it was qualified against.
    """
    found: dict[str, str] = {}
    before = write(tree)
    for name, old, new in _changes(tree, catalog):
        if old is tree:
            sql = write(new)
        else:
            old.replace(new)
            sql = write(tree)
            new.replace(old)
        if sql != before:
            found.setdefault(sql, name)
    for name, sql in _set_changes(tree, catalog):
        found.setdefault(sql, name)
    return [Mutant(name, sql) for sql, name in found.items()]


def _changes(tree: exp.Query, catalog: Catalog) -> Iterator[tuple[str, exp.Expr, exp.Expr]]:
    """Nodes of the tree, each with what to put in its place."""
    for node in list(tree.walk()):
        kind = type(node)
        if kind in _OTHER_AGGREGATES:
            yield from _aggregates(node)
        elif isinstance(node, exp.Count):
            yield from _counts(node, catalog)
        elif kind in _OTHER_COMPARISONS:
            yield from _comparisons(node)
        elif isinstance(node, exp.EQ | exp.NEQ) and not _is_join(node):
            other = exp.NEQ if isinstance(node, exp.EQ) else exp.EQ
            yield (
                f"{_SYMBOLS[other]} for {_SYMBOLS[kind]}",
                node,
                other(this=node.this.copy(), expression=node.expression.copy()),
            )
            yield from _literals(node, catalog)
        elif isinstance(node, exp.And | exp.Or) and not (_is_join(node.this) or _is_join(node.expression)):
            junction = exp.Or if isinstance(node, exp.And) else exp.And
            name = "OR for AND" if isinstance(node, exp.And) else "AND for OR"
            yield name, node, exp.paren(junction(this=node.this.copy(), expression=node.expression.copy()))
            if isinstance(node, exp.And):
                inside = " in HAVING" if isinstance(node.find_ancestor(exp.Having, exp.Select), exp.Having) else ""
                for kept, dropped in ((node.this, node.expression), (node.expression, node.this)):
                    if not isinstance(dropped, exp.And):
                        yield f"without {_short(dropped)}{inside}", node, kept.copy()
        elif isinstance(node, exp.In):
            if isinstance(node.parent, exp.Not):
                yield "IN for NOT IN", node.parent, node.copy()
            else:
                yield "NOT IN for IN", node, exp.Not(this=node.copy())
        elif isinstance(node, exp.Exists):
            if isinstance(node.parent, exp.Not):
                yield "EXISTS for NOT EXISTS", node.parent, node.copy()
            else:
                yield "NOT EXISTS for EXISTS", node, exp.Not(this=node.copy())
        elif isinstance(node, exp.Is):
            if isinstance(node.parent, exp.Not):
                yield "IS NULL for IS NOT NULL", node.parent, node.copy()
            else:
                yield "IS NOT NULL for IS NULL", node, exp.Not(this=node.copy())
        elif isinstance(node, exp.Ordered) and not _orders_one_row(node):
            turned = node.copy()
            turned.set("desc", not node.args.get("desc"))
            turned.set("nulls_first", None)
            yield ("ASC for DESC" if node.args.get("desc") else "DESC for ASC"), node, turned
        elif isinstance(node, exp.Limit) and isinstance(node.expression, exp.Literal) and node.expression.is_int:
            count = int(node.expression.this)
            yield f"LIMIT {count + 1}", node.expression, exp.Literal.number(count + 1)
            if count > 1:
                yield f"LIMIT {count - 1}", node.expression, exp.Literal.number(count - 1)
        elif isinstance(node, exp.Union | exp.Intersect | exp.Except):
            for other_set in _SETS:
                if other_set is not kind:
                    swapped = other_set(**node.copy().args)
                    swapped.set("distinct", True)
                    yield f"{_SETS[other_set]} for {_SETS[type(node)]}", node, swapped


def _aggregates(node: exp.Expr) -> Iterator[tuple[str, exp.Expr, exp.Expr]]:
    name = type(node).__name__.upper()
    if isinstance(node.this, exp.Distinct):
        return
    others = _OTHER_AGGREGATES[type(node)]
    select = node.find_ancestor(exp.Select)
    if select is not None and _is_scalar(select):
        others = others[:1]  # nobody compares a value with a number of rows by mistake
    for other in others:
        yield f"{other.__name__.upper()} for {name}", node, other(this=node.this.copy())


def _counts(node: exp.Count, catalog: Catalog) -> Iterator[tuple[str, exp.Expr, exp.Expr]]:
    counted = node.this
    if isinstance(counted, exp.Star):
        return  # COUNT(x) for some x: which one would be somebody's question?
    distinct = isinstance(counted, exp.Distinct)
    inner = counted.expressions[0] if distinct and len(counted.expressions) == 1 else counted
    if not isinstance(inner, exp.Column):
        return
    select = node.find_ancestor(exp.Select)
    column = resolve(inner, catalog)
    if select is None or column is None:
        return
    if not (_is_unique(column, catalog) and not _fans_out(select, inner.table, catalog)):
        other = exp.Count(this=inner.copy() if distinct else exp.Distinct(expressions=[inner.copy()]))
        yield ("COUNT for COUNT DISTINCT" if distinct else "COUNT DISTINCT for COUNT"), node, other
    if not distinct and column.nullable and not _is_unique(column, catalog) and not _rejects_null(select, inner):
        yield "COUNT(*) for COUNT(column)", node, exp.Count(this=exp.Star())


def _comparisons(node: exp.Expr) -> Iterator[tuple[str, exp.Expr, exp.Expr]]:
    boundary, turned = _OTHER_COMPARISONS[type(node)]
    # That an average hits a bound exactly is no case that a question can mean.
    # Nor has a copy of few rows a group of exactly 35.
    whole = not any(side.find(*_REAL) for side in (node.this, node.expression)) and not _counts_many(node)
    for other in (boundary, turned) if whole else (turned,):
        new = other(this=node.this.copy(), expression=node.expression.copy())
        yield f"{_SYMBOLS[other]} for {_SYMBOLS[type(node)]}", node, new


def _counts_many(node: exp.Expr) -> bool:
    counts, bound = node.find(exp.Count), node.args["expression"]
    return counts is not None and isinstance(bound, exp.Literal) and bound.is_int and int(bound.this) > _COUNTED


def _literals(node: exp.Expr, catalog: Catalog) -> Iterator[tuple[str, exp.Expr, exp.Expr]]:
    """Another value of the same column."""
    column, literal = node.this, node.expression
    if not isinstance(column, exp.Column) or not isinstance(literal, exp.Literal):
        return
    known = resolve(column, catalog)
    for value in known.frequent if known is not None else ():
        if str(value) != literal.this and isinstance(value, str) == literal.is_string:
            new = exp.Literal.string(value) if isinstance(value, str) else exp.Literal.number(value)
            yield f"another value of {known.name if known else ''}", literal, new
            return


def _set_changes(tree: exp.Query, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """What is set on a node rather than put in its place."""
    for node in list(tree.find_all(exp.Select, exp.Join)):
        if isinstance(node, exp.Join):
            if _may_miss_partner(node, catalog):
                side = node.args.get("side")
                sql = _with(tree, node, {"side": None if side else "LEFT", "kind": None})
                yield ("INNER for LEFT JOIN" if side else "LEFT for INNER JOIN"), sql
            yield from _join_paths(tree, node, catalog)
            continue
        assert isinstance(node, exp.Select)
        if _distinct_matters(node, catalog):
            distinct = node.args.get("distinct")
            new = None if distinct else exp.Distinct()
            yield ("without DISTINCT" if distinct else "with DISTINCT"), _with(tree, node, {"distinct": new})
        for clause in ("where", "having"):
            part = node.args.get(clause)
            if part is not None and not isinstance(part.this, exp.And):
                yield f"without {clause.upper()} {_short(part.this)}", _with(tree, node, {clause: None})
        yield from _columns(tree, node, catalog)


def _with(tree: exp.Expr, node: exp.Expr, changed: dict[str, exp.Expr | str | None]) -> str:
    before = {name: node.args.get(name) for name in changed}
    for name, value in changed.items():
        node.set(name, value)
    sql = write(tree)
    for name, old in before.items():
        node.set(name, old)
    return sql


def _columns(tree: exp.Expr, select: exp.Select, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """The first column shown, for another one of its table and type."""
    if select.args.get("group") is not None or isinstance(select.parent, exp.Exists) or _is_scalar(select):
        return  # the averages of two columns may be alike
    for shown in select.expressions:
        node = shown.find(exp.Column)
        column = resolve(node, catalog) if node is not None else None
        if node is None or column is None or node.find_ancestor(exp.Count, exp.Select) is not select:
            continue
        table = catalog.table(column.table)
        used = {part.name for part in select.find_all(exp.Column)}
        for other in table.columns:
            if other.type == column.type and other.name.lower() not in used and not _is_unique(other, catalog):
                new = exp.column(exp.to_identifier(other.name.lower(), quoted=True), table=node.args["table"].copy())
                node.replace(new)
                sql = write(tree)
                new.replace(node)
                yield f"{other.name} for {column.name}", sql
                return


def _join_paths(tree: exp.Expr, join: exp.Join, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Another key between the two tables: the home team for the away team."""
    on = join.args.get("on")
    if not isinstance(on, exp.EQ) or not _is_join(on):
        return
    for node, other_side in ((on.this, on.expression), (on.expression, on.this)):
        column, other = resolve(node, catalog), resolve(other_side, catalog)
        if column is None or other is None:
            continue
        for key in catalog.table(column.table).foreign_keys:
            same = key.referred_table.casefold() == other.table.casefold() and len(key.columns) == 1
            if same and key.referred_columns[0].casefold() == other.name.casefold() and key.columns[0] != column.name:
                new = exp.column(
                    exp.to_identifier(key.columns[0].lower(), quoted=True), table=node.args["table"].copy()
                )
                node.replace(new)
                sql = write(tree)
                new.replace(node)
                yield f"joined by {key.columns[0]} for {column.name}", sql


def _short(node: exp.Expr) -> str:
    text = write(node).replace('"', "")
    return text if len(text) <= 60 else f"{text[:59]}…"


def _is_join(node: exp.Expr) -> bool:
    return isinstance(node, exp.EQ) and isinstance(node.this, exp.Column) and isinstance(node.expression, exp.Column)


def _is_unique(column: Column, catalog: Catalog) -> bool:
    """Whether the schema says that a column's values differ: the one column of a primary key, or of a key's aim."""
    return catalog.table(column.table).primary_key == (column.name,)


def _is_scalar(select: exp.Select) -> bool:
    """Whether a subquery stands for one value."""
    return isinstance(select.parent, exp.Subquery) and not isinstance(select.parent.parent, exp.From | exp.Join)


def _orders_one_row(node: exp.Ordered) -> bool:
    select = node.find_ancestor(exp.Select, exp.SetOperation)
    return (
        isinstance(select, exp.Select)
        and select.args.get("group") is None
        and any(shown.find(exp.AggFunc) and not shown.find(exp.Window) for shown in select.expressions)
    )


def _sources(select: exp.Select) -> list[exp.Expr]:
    start = select.args.get("from_")
    return [part.this for part in [start, *(select.args.get("joins") or ())] if part is not None]


def _fans_out(select: exp.Select, name: str, catalog: Catalog) -> bool:
    """Whether a join may repeat the rows of one of a query's tables: unless each is joined by its own key."""
    for join in select.args.get("joins") or ():
        on = join.args.get("on")
        target = join.this.alias_or_name
        if target == name:
            # The table itself was joined: what came before it may repeat it.
            return True
        sides = [on.this, on.expression] if isinstance(on, exp.EQ) and _is_join(on) else []
        own = [side for side in sides if side.table == target]
        column = resolve(own[0], catalog) if own else None
        if column is None or not _is_unique(column, catalog):
            return True
    return False


def _distinct_matters(select: exp.Select, catalog: Catalog) -> bool:
    """Whether DISTINCT may change a SELECT; what the schema proves to be the same is left out."""
    if isinstance(select.parent, exp.In | exp.Exists) or isinstance(select.find_ancestor(exp.In, exp.Select), exp.In):
        return False
    if isinstance(select.parent, exp.SetOperation) and select.parent.args.get("distinct") is not False:
        return False  # sets have no repetitions
    if _is_scalar(select):
        return False
    limit = select.args.get("limit")
    if limit is not None and (limit.expression.sql() == "1" or not select.args.get("distinct")):
        return False  # the first five rows: nobody means five different ones
    if select.args.get("distinct") is not None and select.args["distinct"].args.get("on") is not None:
        return False
    shown = [part.unalias() for part in select.expressions]
    group = select.args.get("group")
    if group is not None:
        return not all(key in shown for key in group.expressions)
    if any(part.find(exp.AggFunc) for part in shown):
        return False
    if not any(isinstance(part, exp.Column) and resolve(part, catalog) for part in shown):
        return False  # what steps hand on, such as groups: nothing is known of its keys
    names: dict[str, set[str]] = {}
    keys: dict[str, tuple[str, ...]] = {}
    for part in shown:
        column = resolve(part, catalog) if isinstance(part, exp.Column) else None
        if column is not None:
            names.setdefault(part.table, set()).add(column.name)
            keys[part.table] = catalog.table(column.table).primary_key
    return not any(
        key and names[source] >= set(key) and not _fans_out(select, source, catalog) for source, key in keys.items()
    )


def _rejects_null(select: exp.Select, column: exp.Column) -> bool:
    """Whether rows with NULL in a column never reach the result: a condition or an inner join compares it."""
    places = [select.args.get("where")]
    places += [join.args.get("on") for join in select.args.get("joins") or () if not join.args.get("side")]
    for place in places:
        for node in place.find_all(exp.Column) if place is not None else ():
            if node == column and not node.find_ancestor(exp.Or, exp.Is, exp.Not, exp.Coalesce, exp.Case):
                return True
    return False


def _may_miss_partner(join: exp.Join, catalog: Catalog) -> bool:
    """Whether rows without partner may show: INNER and LEFT differ.

    They cannot where a condition asks for a column of the joined table, where groups or aggregates leave NULL out,
    or where a declared key that is never NULL gives every row its partner.
    """
    select, on = join.find_ancestor(exp.Select), join.args.get("on")
    if select is None or not isinstance(on, exp.EQ) or not _is_join(on) or not isinstance(join.this, exp.Table):
        return False
    if join.args.get("side") not in (None, "", "LEFT") or select.args.get("limit") is not None:
        return False
    target = join.this.alias_or_name
    if select.args.get("group") is not None or any(part.find(exp.AggFunc) for part in select.expressions):
        return False
    later = [other.args.get("on") for other in select.args.get("joins") or () if other is not join]
    for place in [select.args.get("where"), *later]:
        if place is not None and any(node.table == target for node in place.find_all(exp.Column)):
            return False
    if isinstance(select.find_ancestor(exp.In, exp.Exists, exp.SetOperation), exp.Expr):
        return False
    own, other = (on.this, on.expression) if on.this.table == target else (on.expression, on.this)
    joined, outer = resolve(own, catalog), resolve(other, catalog)
    if joined is None or outer is None:
        return False
    key = _key_of(outer, joined, catalog)
    return key is None or key.inferred or outer.nullable


def _key_of(child: Column, parent: Column, catalog: Catalog) -> ForeignKey | None:
    for key in catalog.table(child.table).foreign_keys:
        if key.columns == (child.name,) and key.referred_table.casefold() == parent.table.casefold():
            return key
    return None

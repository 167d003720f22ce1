"""Reading a query with sqlglot: its columns, its joins, its operators, its skeleton."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope
from sqlglot.schema import MappingSchema

from tutelage.text2sql.database.schema import DIALECTS, Catalog
from tutelage.text2sql.explore.pair import OPERATORS

ColumnRef = tuple[str, str]  # (table, column), as the catalog spells them
JoinRef = tuple[ColumnRef, ColumnRef]  # the two sides of an equality, sorted


@dataclass(frozen=True, slots=True)
class Reading:
    """What a query that fits a catalog is made of."""

    columns: frozenset[ColumnRef]
    joins: frozenset[JoinRef]


def mapping_schema(catalog: Catalog) -> MappingSchema:
    """The catalog as sqlglot wants it, with names in lower case."""
    columns: dict[str, object] = {
        table.name.lower(): {column.name.lower(): "text" for column in table.columns}
        for table in catalog.tables
        if table.columns
    }
    return MappingSchema(columns, dialect=DIALECTS[catalog.dialect].sqlglot, normalize=False)


class Reader:
    """Reads queries against one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._dialect = DIALECTS[catalog.dialect].sqlglot
        self._names = {
            (table.name.lower(), column.name.lower()): (table.name, column.name)
            for table in catalog.tables
            for column in table.columns
        }
        self._schema = mapping_schema(catalog)

    def read(self, sql: str) -> Reading | None:
        """Read a query; None where it does not parse or names what the catalog does not have."""
        try:
            tree = sqlglot.parse_one(sql, dialect=self._dialect)
            # Names compare whatever their case, quoted or not, as in SQLite.
            tree = qualify(
                _lower_names(tree),
                schema=self._schema,
                dialect=self._dialect,
                identify=False,
                quote_identifiers=False,
                validate_qualify_columns=False,
            )
            scopes = traverse_scope(tree)
        except (SqlglotError, RecursionError):
            return None
        columns, joins = set[ColumnRef](), set[JoinRef]()
        for scope in scopes:
            for column in scope.columns:
                if reference := self._resolve(scope, column):
                    columns.add(reference)
            joins.update(self._joins(scope))
        return Reading(frozenset(columns), frozenset(joins))

    def _resolve(self, scope: Scope | None, column: exp.Expr) -> ColumnRef | None:
        if not isinstance(column, exp.Column):
            return None
        while scope is not None:  # a correlated subquery names columns of the query around it
            if (source := scope.sources.get(column.table)) is not None:
                return self._names.get((source.name, column.name)) if isinstance(source, exp.Table) else None
            scope = scope.parent
        return None

    def _joins(self, scope: Scope) -> Iterator[JoinRef]:
        # Spider joins in ON, older hands in WHERE: an equality of columns of two tables is a join either way.
        for equality in scope.find_all(exp.EQ):
            left, right = self._resolve(scope, equality.left), self._resolve(scope, equality.right)
            if left and right and left[0] != right[0]:
                yield (left, right) if left <= right else (right, left)


def _lower_names(tree: exp.Expr) -> exp.Expr:
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.this.lower())
    return tree


def operators_of(tree: exp.Expr) -> tuple[str, ...]:
    """Name a query's operators, of ``pair.OPERATORS`` and in that order."""
    found = set[str]()
    for node in tree.walk():
        match node:
            case exp.Where():
                found.add("filter")
            case exp.Join():
                found.add("join")
            case exp.Group():
                found.add("group")
            case exp.Having():
                found.add("having")
            case exp.Order() if not isinstance(node.parent, exp.Window):
                found.add("order")
            case exp.Limit():
                found.add("limit")
            case exp.SetOperation():
                found.add("set_operation")
            case exp.CTE():
                found.add("cte")
            case exp.Window():
                found.add("window")
            case exp.AggFunc() if not isinstance(node.parent, exp.Window):
                found.add("aggregate")
            case exp.Subquery() if not isinstance(node.parent, exp.SetOperation):
                found.add("nesting")
            case exp.In() if node.args.get("query"):
                found.add("nesting")
            case exp.Exists():
                found.add("nesting")
    return tuple(operator for operator in OPERATORS if operator in found)


def skeleton_of(tree: exp.Expr) -> str:
    """Write a query with its names and values taken out: ``SELECT _ FROM _ WHERE _ > ?``."""

    def strip(node: exp.Expr) -> exp.Expr | None:
        match node:
            case exp.Column() if isinstance(node.this, exp.Star):
                return exp.Star()
            case exp.Column():
                # SQLite takes "text" in double quotes for a value where no column is called so; seeds do that.
                text = node.this.quoted and not node.table and node.arg_key != "this" and node.find_ancestor(exp.Where)
                return exp.Placeholder() if text else exp.column("_")
            case exp.Table():
                return exp.to_table("_")
            case exp.Join() if node.kind == "INNER":
                node.set("kind", None)  # says nothing that JOIN does not
            case exp.Literal() | exp.Boolean():
                return exp.Placeholder()
            case exp.Alias():
                return node.this.transform(strip) if isinstance(node.this, exp.Expr) else node
            case exp.TableAlias():
                return exp.TableAlias(this=exp.to_identifier("_")) if isinstance(node.parent, exp.CTE) else None
        return node

    stripped = tree.transform(strip)
    assert stripped is not None
    return str(stripped.sql(dialect="sqlite"))

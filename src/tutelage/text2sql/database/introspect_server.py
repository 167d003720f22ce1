"""The catalog of a PostgreSQL, MySQL or DuckDB database, through SQLAlchemy, in read-only transactions.

DuckDB's tables and keys are asked of its own catalog functions: SQLAlchemy's reflection sends it queries on
``pg_catalog`` tables that DuckDB does not have.
"""

import datetime
import decimal
import uuid
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tutelage.core.errors import DataError
from tutelage.text2sql.database.address import DatabaseUrl
from tutelage.text2sql.database.introspect_sqlite import MAX_TEXT, NUM_FREQUENT
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table, Value
from tutelage.text2sql.database.servers.session import open_connection

_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "duckdb": "duckdb"}
# Of a larger table the rows are not counted, and its values are counted in a sample.
MAX_SCANNED_ROWS = 1_000_000
SAMPLED_ROWS = 100_000
_ESTIMATES = {
    "postgresql": "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(quote_ident(:name))",
    "mysql": "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :name",
    "duckdb": "SELECT max(estimated_size) FROM duckdb_tables() WHERE table_name = :name",
}


def introspect_server(database: DatabaseUrl, *, db_id: str | None, statistics: bool) -> Catalog:
    """Read the catalog of the database that a URL names.

    On PostgreSQL tables of all schemas are read that the role may use, those of ``public`` first; of two tables with
    one name the first is taken, and the notes say so. ``?options=-csearch_path%3Dsales`` names the schemas instead.

    Raises:
        ConfigError: The URL is of no known kind, or its driver is not installed.
        DataError: The server cannot be reached or does not let us read.
    """
    with connect(database) as connection:
        dialect = database.dialect
        notes: list[str] = []
        tables = _duckdb_tables(connection) if dialect == "duckdb" else _reflected_tables(connection, notes)
        if statistics:
            tables = [counted for table in tables if (counted := _count(connection, table, notes)) is not None]
        known = {table.name for table in tables}
        tables = [_with_known_keys(table, known, notes) for table in tables]
        return Catalog(db_id or database.name, str(database), dialect, tuple(tables), tuple(notes))


@contextmanager
def connect(database: DatabaseUrl) -> Iterator[sa.Connection]:
    """Open a read-only connection, as queries have it, and turn its errors into the user's.

    Raises:
        ConfigError: The driver is not installed.
        DataError: The database cannot be reached, or does not let us read.
    """
    # The engine has SQLAlchemy's dialect; connections are made as the executor makes them.
    engine = sa.create_engine(
        sa.make_url(database.url).set(drivername=_DRIVERS[database.dialect]),
        creator=lambda: open_connection(database),
        poolclass=sa.NullPool,
    )
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.DBAPIError as error:
        # The driver's message, without the SQL and the link that SQLAlchemy adds.
        what = " ".join(str(error.orig).split())
        raise DataError("database", f"{database} cannot be read ({what})", "check address, user and rights") from error
    finally:
        engine.dispose()


def contained(connection: sa.Connection, column: Column, key: Column) -> bool:
    """Ask whether each value of a column is found in a key."""
    here = sql_table(column.table, [column]).c[column.name]
    there = sql_table(key.table, [key]).alias().c[key.name]
    stray = sa.select(sa.literal(1)).where(here.is_not(None), here.not_in(sa.select(there))).limit(1)
    try:
        return connection.execute(stray).first() is None
    except sa.exc.DBAPIError:
        connection.rollback()  # types that cannot be compared: no key
        return False


def _reflected_tables(connection: sa.Connection, notes: list[str]) -> list[Table]:
    inspector = sa.inspect(connection)
    schemas: list[str | None] = [None]  # the default one
    if connection.dialect.name == "postgresql":
        schemas = list(connection.exec_driver_sql("SELECT unnest(current_schemas(false))").scalars())
    found: dict[str, Table] = {}
    for schema in schemas:
        for table in _tables_of(inspector, connection.dialect, schema):
            if table.name in found:
                notes.append(f"{schema}.{table.name} left out: a table of that name in another schema comes first")
            else:
                found[table.name] = table
    return list(found.values())


def _tables_of(inspector: sa.Inspector, dialect: sa.Dialect, schema: str | None) -> Iterator[Table]:
    """Read the tables, then the views of one schema."""
    tables, views = inspector.get_table_names(schema), set(inspector.get_view_names(schema))
    if dialect.name == "postgresql":
        views |= set(inspector.get_materialized_view_names(schema))
    kinds = sa.engine.reflection.ObjectKind.ANY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # a type it does not know: _type_name
        columns = inspector.get_multi_columns(schema, kind=kinds)
    primary = inspector.get_multi_pk_constraint(schema, kind=kinds)
    foreign = inspector.get_multi_foreign_keys(schema, kind=kinds)
    comments = inspector.get_multi_table_comment(schema, kind=kinds)
    for name in [*tables, *sorted(views)]:
        key = (schema, name)
        keys = [
            ForeignKey(
                name,
                tuple(declared["constrained_columns"]),
                declared["referred_table"],
                tuple(declared["referred_columns"]),
            )
            for declared in foreign.get(key) or ()
        ]
        primary_key = primary.get(key)
        comment = comments.get(key)
        yield Table(
            name=name,
            columns=tuple(
                Column(
                    name=column["name"],
                    type=_type_name(column["type"], dialect),
                    table=name,
                    nullable=column["nullable"],
                    comment=column.get("comment") or "",
                )
                for column in columns.get(key, ())
            ),
            primary_key=tuple(primary_key["constrained_columns"]) if primary_key else (),
            foreign_keys=tuple(sorted(keys, key=lambda item: item.columns)),
            num_rows=None,
            is_view=name in views,
            comment=(comment["text"] or "") if comment else "",
        )


def _with_known_keys(table: Table, known: Collection[str], notes: list[str]) -> Table:
    """Leave out keys to tables that were not read."""
    kept = tuple(key for key in table.foreign_keys if key.referred_table in known)
    for key in set(table.foreign_keys) - set(kept):
        notes.append(f"foreign key {table.name} → {key.referred_table} left out: that table was not read")
    return replace(table, foreign_keys=kept)


def _type_name(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> str:
    # A type that SQLAlchemy does not know, such as a point, has no name.
    return "" if isinstance(kind, sa.types.NullType) else kind.compile(dialect)


def _duckdb_tables(connection: sa.Connection) -> list[Table]:
    here = "database_name = current_database() AND NOT internal"
    schema_of: dict[str, str] = dict(  # of tables with one name the one in main, or else the first
        connection.exec_driver_sql(
            f"""SELECT name, arg_min(schema_name, (schema_name <> 'main', schema_name)) FROM (
            SELECT table_name AS name, schema_name FROM duckdb_tables() WHERE {here}
            UNION ALL SELECT view_name, schema_name FROM duckdb_views() WHERE {here}) GROUP BY name"""
        )
        .tuples()
        .all()
    )
    columns: dict[str, list[Column]] = {}
    for schema, table, name, declared, nullable, comment in connection.exec_driver_sql(
        f"""SELECT schema_name, table_name, column_name, data_type, is_nullable, comment
        FROM duckdb_columns() WHERE {here} ORDER BY table_oid, column_index"""
    ):
        if schema_of[table] == schema:
            columns.setdefault(table, []).append(Column(name, declared, table, nullable, comment or ""))
    primary: dict[str, tuple[str, ...]] = {}
    foreign: dict[str, list[ForeignKey]] = {}
    for schema, table, kind, names, referred_table, referred in connection.exec_driver_sql(
        """SELECT schema_name, table_name, constraint_type, constraint_column_names, referenced_table,
        referenced_column_names FROM duckdb_constraints()
        WHERE database_name = current_database() ORDER BY table_oid, constraint_index"""
    ):
        if schema_of[table] != schema:
            continue
        if kind == "PRIMARY KEY":
            primary[table] = tuple(names)
        elif kind == "FOREIGN KEY":
            foreign.setdefault(table, []).append(ForeignKey(table, tuple(names), referred_table, tuple(referred)))
    return [
        Table(
            name=table,
            columns=tuple(columns.get(table, ())),
            primary_key=primary.get(table, ()),
            foreign_keys=tuple(foreign.get(table, ())),
            num_rows=None,
            is_view=is_view,
            comment=comment or "",
        )
        for schema, table, is_view, comment in connection.exec_driver_sql(
            f"""SELECT schema_name, table_name, false, comment FROM duckdb_tables() WHERE {here}
            UNION ALL SELECT schema_name, view_name, true, comment FROM duckdb_views() WHERE {here} ORDER BY 3, 2"""
        )
        if schema_of[table] == schema
    ]


def sql_table(name: str, columns: Sequence[Column]) -> sa.TableClause:
    """Name a table for SQLAlchemy; all names are quoted, so that keywords, spaces and capitals come as they are."""
    parts: list[sa.ColumnClause[object]] = [sa.column(sa.quoted_name(column.name, quote=True)) for column in columns]
    return sa.table(sa.quoted_name(name, quote=True), *parts)


def _count(connection: sa.Connection, table: Table, notes: list[str]) -> Table | None:
    """Count a table's values; None, and a note, where it may not be read."""
    source = sql_table(table.name, table.columns)
    try:
        num_rows = _num_rows(connection, table, source)
    except sa.exc.DBAPIError as error:
        connection.rollback()
        notes.append(f"{table.name} left out: {_said(error)}")
        return None
    sampled = num_rows > MAX_SCANNED_ROWS
    share = SAMPLED_ROWS / num_rows if sampled else 1.0
    if sampled:
        notes.append(f"{table.name}: statistics from a sample of about {SAMPLED_ROWS:,} of about {num_rows:,} rows")
    columns = []
    for column in table.columns:
        try:
            columns.append(_count_column(connection, table, column, num_rows, share))
        except sa.exc.DBAPIError as error:
            # JSON, geometry: values that cannot be grouped or ordered.
            connection.rollback()
            notes.append(f"statistics of {table.name}.{column.name} left out: {_said(error)}")
            columns.append(column)
    return replace(table, num_rows=num_rows, columns=tuple(columns))


def _said(error: sa.exc.DBAPIError) -> str:
    return " ".join(str(error.orig).split())


def _num_rows(connection: sa.Connection, table: Table, source: sa.TableClause) -> int:
    """Count rows; of a table that the server takes for a large one its estimate is taken."""
    connection.execute(sa.select(sa.literal(1)).select_from(source).limit(1))  # may it be read?
    if not table.is_view and (estimate := _ESTIMATES.get(connection.dialect.name)) is not None:
        estimated = connection.execute(sa.text(estimate), {"name": table.name}).scalar()
        if estimated is not None and int(estimated) > MAX_SCANNED_ROWS:
            return int(estimated)
    return int(connection.execute(sa.select(sa.func.count()).select_from(source)).scalar_one())


def sampled_table(dialect: str, table: Table, *, share: float) -> sa.FromClause:
    """A table, or a random share of its rows, without reading the others; on MySQL, which cannot, the first ones."""
    source = sql_table(table.name, table.columns)
    if share >= 1:
        return source
    if table.is_view or dialect == "mysql":
        return sa.select(*source.c).limit(int(share * (table.num_rows or SAMPLED_ROWS / share))).subquery()
    return sa.tablesample(source, sa.func.system(sa.literal_column(f"{100 * share:.6f}")), seed=sa.literal_column("1"))


def _count_column(connection: sa.Connection, table: Table, column: Column, num_rows: int, share: float) -> Column:
    source = sampled_table(connection.dialect.name, replace(table, num_rows=num_rows), share=share).c[column.name]
    groups = (
        sa.select(source.label("value"), sa.func.count().label("frequency"))
        .where(source.is_not(None))
        .group_by(source)
        .cte("counted")
    )
    value, frequency = groups.c.value, groups.c.frequency
    short = sa.func.length(sa.cast(value, sa.Text)) <= MAX_TEXT
    num_distinct, num_present = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(frequency), 0)).select_from(groups)
    ).one()
    most = sa.select(value).where(short).order_by(frequency.desc(), value).limit(NUM_FREQUENT)
    frequent = [as_value(row[0]) for row in connection.execute(most)]
    bounds = sa.select(value).where(short)
    least = connection.execute(bounds.order_by(value).limit(1)).scalar()
    greatest = connection.execute(bounds.order_by(value.desc()).limit(1)).scalar()
    num_present = int(num_present)
    num_seen = num_rows
    if share < 1:
        num_seen = int(connection.execute(sa.select(sa.func.count()).select_from(source.table)).scalar_one())
        if num_distinct > 0.5 * num_present:  # nearly each row has its own
            num_distinct = int(num_distinct * num_rows / max(1, num_seen))
    return replace(
        column,
        num_distinct=num_distinct,
        num_null=int((num_seen - num_present) * num_rows / max(1, num_seen)),
        minimum=as_value(least),
        maximum=as_value(greatest),
        frequent=tuple(value for value in frequent if value is not None),
    )


def as_value(value: object) -> Value | None:
    """Bring a driver's value to text or a number; None for what no literal says."""
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return value
        case decimal.Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime.datetime():
            return value.isoformat(sep=" ")
        case datetime.date() | datetime.time():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case _:
            return None

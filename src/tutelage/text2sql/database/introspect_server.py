"""The catalog of a PostgreSQL, MySQL or DuckDB database, through SQLAlchemy, in read-only transactions.

DuckDB's tables and keys are asked of its own catalog functions: SQLAlchemy's reflection sends it queries on
``pg_catalog`` tables that DuckDB does not have.
"""

import datetime
import decimal
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import sqlalchemy as sa

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.database.introspect_sqlite import MAX_TEXT, NUM_FREQUENT
from tutelage.text2sql.database.schema import Catalog, Column, Dialect, ForeignKey, Table, Value

# A driver for each server, and the extra that brings it.
_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "duckdb": "duckdb"}
_EXTRAS = {"postgresql": "postgres", "mysql": "mysql"}


def introspect_server(url_text: str, *, db_id: str | None, statistics: bool) -> Catalog:
    """Read the catalog of the database that a URL names (on PostgreSQL: of its default schema).

    Raises:
        ConfigError: The URL is of no known kind, or its driver is not installed.
        DataError: The server cannot be reached or does not let us read.
    """
    with connect(url_text) as (connection, dialect):
        url = connection.engine.url
        notes: list[str] = []
        tables = _duckdb_tables(connection) if dialect == "duckdb" else _reflected_tables(connection, notes)
        if statistics:
            tables = [_count(connection, table, notes) for table in tables]
        name = db_id or (url.database or dialect).rsplit("/", 1)[-1].removesuffix(".duckdb")
        return Catalog(name, url.render_as_string(hide_password=True), dialect, tuple(tables), tuple(notes))


@contextmanager
def connect(url_text: str) -> Iterator[tuple[sa.Connection, Dialect]]:
    """Open a read-only connection, and turn its errors into the user's."""
    try:
        url = sa.make_url(url_text)
    except sa.exc.ArgumentError as error:
        raise ConfigError("database", f"{url_text} is not a URL", "write postgresql://user@host/name") from error
    dialect = _dialect(url.get_backend_name(), url_text)
    if url.drivername == dialect:
        url = url.set(drivername=_DRIVERS[dialect])
    try:
        engine = sa.create_engine(url, **_read_only(dialect), poolclass=sa.NullPool)
    except ImportError as error:
        extra = _EXTRAS.get(dialect, dialect)
        raise ConfigError(
            "database", f"the driver for {dialect} is not installed ({error})", f"pip install -e '.[{extra}]'"
        ) from error
    try:
        with engine.connect() as connection:
            if dialect == "mysql":
                connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
                connection.rollback()
            yield connection, dialect
    except sa.exc.DBAPIError as error:
        # The driver's message, without the SQL and the link that SQLAlchemy adds.
        what = " ".join(str(error.orig).split())
        shown = url.render_as_string(hide_password=True)
        raise DataError("database", f"{shown} cannot be read ({what})", "check address, user and rights") from error
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


def _dialect(name: str, url_text: str) -> Dialect:
    name = "mysql" if name == "mariadb" else name
    for dialect in get_args(Dialect):
        if dialect == name and dialect in _DRIVERS:
            return dialect  # type: ignore[no-any-return]
    raise ConfigError(
        "database",
        f"{url_text.split(':', 1)[0]}:// is not a known kind of database",
        "give the path of a SQLite or DuckDB file, or a postgresql://, mysql:// or duckdb:/// URL",
    )


def _read_only(dialect: Dialect) -> dict[str, dict[str, object]]:
    """Name the arguments that make every transaction of an engine read-only."""
    if dialect == "postgresql":
        return {"execution_options": {"postgresql_readonly": True}}
    if dialect == "duckdb":
        return {"connect_args": {"read_only": True}}
    return {}


def _reflected_tables(connection: sa.Connection, notes: list[str]) -> list[Table]:
    inspector = sa.inspect(connection)
    tables, views = inspector.get_table_names(), set(inspector.get_view_names())
    if connection.dialect.name == "postgresql":
        views |= set(inspector.get_materialized_view_names())
    schema = None  # the default one
    kinds = sa.engine.reflection.ObjectKind.ANY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # a type it does not know: _type_name
        columns = inspector.get_multi_columns(kind=kinds)
    primary = inspector.get_multi_pk_constraint(kind=kinds)
    foreign = inspector.get_multi_foreign_keys(kind=kinds)
    comments = inspector.get_multi_table_comment(kind=kinds)
    found = []
    for name in [*tables, *sorted(views)]:
        key = (schema, name)
        keys = []
        for declared in foreign.get(key) or ():
            if declared["referred_schema"] not in (None, inspector.default_schema_name):
                notes.append(f"foreign key {name} → {declared['referred_table']} left out: in another schema")
                continue
            keys.append(
                ForeignKey(
                    name,
                    tuple(declared["constrained_columns"]),
                    declared["referred_table"],
                    tuple(declared["referred_columns"]),
                )
            )
        primary_key = primary.get(key)
        comment = comments.get(key)
        found.append(
            Table(
                name=name,
                columns=tuple(
                    Column(
                        name=column["name"],
                        type=_type_name(column["type"], connection.dialect),
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
        )
    return found


def _type_name(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> str:
    # A type that SQLAlchemy does not know, such as a point, has no name.
    return "" if isinstance(kind, sa.types.NullType) else kind.compile(dialect)


def _duckdb_tables(connection: sa.Connection) -> list[Table]:
    here = "database_name = current_database() AND schema_name = current_schema() AND NOT internal"
    columns: dict[str, list[Column]] = {}
    for table, name, declared, nullable, comment in connection.exec_driver_sql(
        f"""SELECT table_name, column_name, data_type, is_nullable, comment
        FROM duckdb_columns() WHERE {here} ORDER BY table_oid, column_index"""
    ):
        columns.setdefault(table, []).append(Column(name, declared, table, nullable, comment or ""))
    primary: dict[str, tuple[str, ...]] = {}
    foreign: dict[str, list[ForeignKey]] = {}
    for table, kind, names, referred_table, referred in connection.exec_driver_sql(
        """SELECT table_name, constraint_type, constraint_column_names, referenced_table, referenced_column_names
        FROM duckdb_constraints()
        WHERE database_name = current_database() AND schema_name = current_schema()
        ORDER BY table_oid, constraint_index"""
    ):
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
        for table, is_view, comment in connection.exec_driver_sql(
            f"""SELECT table_name, false, comment FROM duckdb_tables() WHERE {here}
            UNION ALL SELECT view_name, true, comment FROM duckdb_views() WHERE {here} ORDER BY 2, 1"""
        )
    ]


def sql_table(name: str, columns: Sequence[Column]) -> sa.TableClause:
    """Name a table for SQLAlchemy; all names are quoted, so that keywords, spaces and capitals come as they are."""
    parts: list[sa.ColumnClause[object]] = [sa.column(sa.quoted_name(column.name, quote=True)) for column in columns]
    return sa.table(sa.quoted_name(name, quote=True), *parts)


def _count(connection: sa.Connection, table: Table, notes: list[str]) -> Table:
    source = sql_table(table.name, table.columns)
    num_rows = connection.execute(sa.select(sa.func.count()).select_from(source)).scalar_one()
    columns = []
    for column in table.columns:
        try:
            columns.append(_count_column(connection, column, source.c[column.name], num_rows))
        except sa.exc.DBAPIError as error:
            # JSON, geometry: values that cannot be grouped or ordered.
            connection.rollback()
            notes.append(f"statistics of {table.name}.{column.name} left out: {' '.join(str(error.orig).split())}")
            columns.append(column)
    return replace(table, num_rows=num_rows, columns=tuple(columns))


def _count_column(connection: sa.Connection, column: Column, source: sa.ColumnElement[object], num_rows: int) -> Column:
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
    return replace(
        column,
        num_distinct=num_distinct,
        num_null=num_rows - int(num_present),
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

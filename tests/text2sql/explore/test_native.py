import pytest

from tutelage.text2sql.database.schema import Catalog, Column, Dialect, Table
from tutelage.text2sql.explore.native import native_sql

OWNERS = Catalog(
    "clinic",
    "postgresql://server/clinic",
    "postgresql",
    (
        Table("Owners", (Column("Id", "", "Owners", False), Column("land", "", "Owners", True)), ("Id",), (), 2, False),
        Table("visits", (Column("owner", "", "visits", True),), (), (), 2, False),
    ),
)


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("postgresql", """SELECT COUNT(*) AS land FROM "Owners" AS T1 JOIN visits AS T2 ON T1."Id" = T2.owner """),
        ("mysql", "SELECT COUNT(*) AS land FROM `Owners` AS T1 JOIN visits AS T2 ON T1.`Id` = T2.owner "),
    ],
)
def test_names_keep_their_case(dialect: Dialect, sql: str) -> None:
    said = "SELECT COUNT(*) AS land FROM owners AS T1 JOIN visits AS T2 ON T1.id = T2.owner"
    assert native_sql(said, OWNERS, dialect) == sql.strip()


def test_like_ignores_case_as_in_sqlite() -> None:
    said = "SELECT Id FROM Owners WHERE land LIKE 'f%'"
    assert native_sql(said, OWNERS, "postgresql") == """SELECT "Id" FROM "Owners" WHERE land ILIKE 'f%'"""
    assert native_sql(said, OWNERS, "duckdb") == """SELECT "Id" FROM "Owners" WHERE land ILIKE 'f%'"""
    assert native_sql(said, OWNERS, "mysql") == "SELECT `Id` FROM `Owners` WHERE land LIKE 'f%'"

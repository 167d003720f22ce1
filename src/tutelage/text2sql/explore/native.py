"""An explored query in the user's own dialect."""

import sqlglot
from sqlglot import exp

from tutelage.text2sql.database.schema import DIALECTS, Catalog, Dialect


def native_sql(sql: str, catalog: Catalog, dialect: Dialect) -> str:
    """Write a query of SQLite's in another dialect: names as the catalog spells them, quoted where case would be lost.

    SQLite's LIKE ignores case, and so does ILIKE; MySQL's LIKE does by its usual collations.
    """
    spelled = {
        name.lower(): name for table in catalog.tables for name in (table.name, *(c.name for c in table.columns))
    }
    tree = sqlglot.parse_one(sql, dialect="sqlite")
    # Names of the query's own (aliases, steps) are written one way throughout.
    own = {alias.name.lower() for alias in tree.find_all(exp.TableAlias, exp.Alias) if alias.name}
    for name in tree.find_all(exp.Identifier):
        true = spelled.get(name.this.lower())
        if true is not None and name.this.lower() not in own:
            name.set("this", true)
            name.set("quoted", name.args.get("quoted") or true != true.lower())
    if dialect in ("postgresql", "duckdb"):
        for like in list(tree.find_all(exp.Like)):
            like.replace(exp.ILike(this=like.this, expression=like.expression))
    return str(tree.sql(dialect=DIALECTS[dialect].sqlglot))

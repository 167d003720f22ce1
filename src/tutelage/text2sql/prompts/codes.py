"""A schema as CodeS (arXiv 2402.16347) shows it: a line a table, then the foreign keys."""

from tutelage.text2sql.database.schema import Catalog, Column, Table
from tutelage.text2sql.prompts.base import Detail, Matches, Prompt, comment_of


class Codes(Prompt):
    """``table t , columns = [ t.c ( type | primary key | comment : … | values : … ) , … ]``."""

    def schema(self, catalog: Catalog, *, matches: Matches, detail: Detail) -> str:
        lines = ["database schema :"]
        for table in catalog.tables:
            columns = " , ".join(self._column(table, column, matches, detail) for column in table.columns)
            lines.append(f"table {table.name} , columns = [ {columns} ]")
        keys = [
            f"{key.table}.{here} = {key.referred_table}.{there}"
            for key in catalog.foreign_keys
            for here, there in zip(key.columns, key.referred_columns, strict=True)
        ]
        lines.append("foreign keys :" if keys else "foreign keys : None")
        return "\n".join([*lines, *keys])

    def _column(self, table: Table, column: Column, matches: Matches, detail: Detail) -> str:
        parts = [column.type.lower()] if column.type else []
        if column.name in table.primary_key:
            parts.append("primary key")
        if detail.comments and comment_of(column):
            parts.append(f"comment : {comment_of(column)}")
        if values := self.shown_values(table, column, matches=matches, detail=detail):
            parts.append(f"values : {' , '.join(values)}")
        return f"{table.name}.{column.name} ( {' | '.join(parts)} )"

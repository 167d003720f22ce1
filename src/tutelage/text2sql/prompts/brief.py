"""A schema in as few tokens as will do, for models with a short context or a single database (ours)."""

from tutelage.text2sql.database.schema import Catalog, Column, Dialect, Table
from tutelage.text2sql.database.sql_text import identifier
from tutelage.text2sql.prompts.base import Detail, Matches, Prompt, comment_of


class Brief(Prompt):
    """``table(column, column = 'value', …)``, a line a table, without types and keys."""

    def schema(self, catalog: Catalog, *, matches: Matches, detail: Detail) -> str:
        lines = []
        for table in catalog.tables:
            columns = ", ".join(
                self._column(table, column, catalog.dialect, matches, detail) for column in table.columns
            )
            lines.append(f"{identifier(table.name, catalog.dialect)}({columns})")
        return "\n".join(lines)

    def _column(self, table: Table, column: Column, dialect: Dialect, matches: Matches, detail: Detail) -> str:
        text = identifier(column.name, dialect)
        if detail.comments and comment_of(column):
            text += f" [{comment_of(column)}]"
        if values := self.shown_values(table, column, matches=matches, detail=detail):
            text += f" = {' | '.join(values)}"
        return text

"""A schema as M-Schema, XiYan-SQL's semi-structured form (arXiv 2411.08599)."""

from tutelage.text2sql.database.schema import Catalog, Column, Table
from tutelage.text2sql.prompts.base import Detail, Matches, Prompt, comment_of


class MSchema(Prompt):
    """``【DB_ID】``, ``【Schema】`` with a tuple a column, ``【Foreign keys】``."""

    def schema(self, catalog: Catalog, *, matches: Matches, detail: Detail) -> str:
        lines = [f"【DB_ID】 {catalog.db_id}", "【Schema】"]
        for table in catalog.tables:
            note = comment_of(table) if detail.comments else ""
            lines.append(f"# Table: {table.name}{f', {note}' if note else ''}")
            columns = ",\n".join(self._column(table, column, matches, detail) for column in table.columns)
            lines.append(f"[\n{columns}\n]")
        if keys := catalog.foreign_keys:
            lines.append("【Foreign keys】")
            lines += [
                f"{key.table}.{here}={key.referred_table}.{there}"
                for key in keys
                for here, there in zip(key.columns, key.referred_columns, strict=True)
            ]
        return "\n".join(lines)

    def _column(self, table: Table, column: Column, matches: Matches, detail: Detail) -> str:
        parts = [f"{column.name}:{column.type.upper()}"]
        if detail.comments and comment_of(column):
            parts.append(comment_of(column))
        if column.name in table.primary_key:
            parts.append("Primary Key")
        if values := self.shown_values(table, column, matches=matches, detail=detail):
            parts.append(f"Examples: [{', '.join(values)}]")
        return f"({', '.join(parts)})"

"""A schema as CREATE TABLE statements, as OmniSQL (arXiv 2503.02240) shows it."""

from collections.abc import Callable
from functools import partial

from tutelage.text2sql.database.schema import Catalog, Column, Table
from tutelage.text2sql.database.sql_text import identifier
from tutelage.text2sql.prompts.base import Detail, Matches, Prompt, comment_of


class Ddl(Prompt):
    """``CREATE TABLE`` with ``-- comment, example: […]`` on each column, then the keys."""

    def schema(self, catalog: Catalog, *, matches: Matches, detail: Detail) -> str:
        return "\n\n".join(
            self._table(table, partial(identifier, dialect=catalog.dialect), matches=matches, detail=detail)
            for table in catalog.tables
        )

    def _table(self, table: Table, spell: Callable[[str], str], *, matches: Matches, detail: Detail) -> str:
        lines = [
            (f"{spell(column.name)} {column.type}".rstrip(), self._remark(table, column, matches, detail))
            for column in table.columns
        ]
        if table.primary_key:
            lines.append((f"PRIMARY KEY ({', '.join(map(spell, table.primary_key))})", ""))
        for key in table.foreign_keys:
            here, there = ", ".join(map(spell, key.columns)), ", ".join(map(spell, key.referred_columns))
            lines.append((f"FOREIGN KEY ({here}) REFERENCES {spell(key.referred_table)} ({there})", ""))
        body = "\n".join(
            f"    {line}{',' if number < len(lines) else ''}{remark}" for number, (line, remark) in enumerate(lines, 1)
        )
        note = comment_of(table) if detail.comments else ""
        heading = f"CREATE TABLE {spell(table.name)} ({f' -- {note}' if note else ''}"
        return f"{heading}\n{body}\n);"

    def _remark(self, table: Table, column: Column, matches: Matches, detail: Detail) -> str:
        parts = [comment_of(column)] if detail.comments and comment_of(column) else []
        if values := self.shown_values(table, column, matches=matches, detail=detail):
            parts.append(f"example: [{', '.join(values)}]")
        return f" -- {', '.join(parts)}" if parts else ""

"""Values of a database that a question speaks of: "late from Kennedy" finds ``airports.name = 'John F Kennedy Intl'``.

As in CodeS (arXiv 2402.16347), BM25 over all text values brings up candidates, and a closer look at how much of
each value stands in the question decides. How close counts is ours.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import bm25s
import numpy as np
import sqlalchemy as sa

from tutelage.core.store import Store, file_hash
from tutelage.text2sql.database.address import Database, DatabaseUrl
from tutelage.text2sql.database.introspect_server import MAX_SCANNED_ROWS, SAMPLED_ROWS, connect, sampled_table
from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.database.schema_filter import ColumnName, words
from tutelage.text2sql.database.sqlite_file import explain, open_readonly

LONGEST = 80  # characters; longer text is prose, which no question quotes
MOST_OF_A_COLUMN = 50_000  # distinct values; those left out are counted in `left_out`
CANDIDATES = 100  # that BM25 brings up
COVERED = 0.5  # least share of a value's letters that must stand in the question
PER_COLUMN = 3
LONGEST_RUN = 3  # words of a question that are tried as one: "la guardia" is "LaGuardia"

# Words that stand in most questions and say nothing of a value.
STOPWORDS = frozenset(
    """a an and are at by did do doe each for from ha have how in is it list many me name number of on or show than
    that the their there this to wa were what when where which who with""".split()  # noqa: SIM905
)


class Entry(NamedTuple):
    """A distinct value of a column."""

    table: str
    column: str
    value: str


class ValueIndex:
    """BM25 over a database's distinct text values."""

    def __init__(self, entries: list[Entry], *, left_out: dict[str, int], bm25: bm25s.BM25 | None = None) -> None:
        """Index entries, or take an index that was made of them before.

        Args:
            entries: What can be found.
            left_out: Columns (``table.column``) with more values than are indexed, and how many are.
            bm25: The index over the entries, in their order.
        """
        self.entries, self.left_out = entries, left_out
        self._bm25 = bm25
        if bm25 is None and entries:
            self._bm25 = bm25s.BM25()
            self._bm25.index([_value_tokens(entry.value) for entry in entries], show_progress=False)

    @classmethod
    def open(cls, catalog: Catalog, *, database: Database | None = None, store: Store | None) -> "ValueIndex":
        """Index a database, or find its index in the store.

        Args:
            catalog: Of the database.
            database: Where it lies; None for the file that the catalog names.
            store: Where the index is kept by the file's hash; None to keep it in memory only, as a server's always is:
                nothing tells whether its values have changed.

        Raises:
            DataError: The file cannot be read.
        """
        if isinstance(database, DatabaseUrl):
            return cls._read_server(catalog, database)
        path = database or Path(catalog.database)
        if store is None:
            return cls.read(catalog)
        # The form of the tokens is part of what an index depends on.
        inputs = {"database": file_hash(path), "longest": LONGEST, "most": MOST_OF_A_COLUMN, "tokens": 2}
        return cls.load(store.make("values", inputs, lambda folder: cls.read(catalog).save(folder)))

    @classmethod
    def read(cls, catalog: Catalog) -> "ValueIndex":
        """Read and index the distinct text values of a SQLite file, a column at a time."""
        path = Path(catalog.database)
        connection = open_readonly(path)
        entries: list[Entry] = []
        left_out: dict[str, int] = {}
        try:
            for table in catalog.tables:
                if table.is_view:  # its values are its tables'
                    continue
                for column in table.columns:
                    values = list(_distinct_texts(connection, table.name, column.name))
                    if len(values) > MOST_OF_A_COLUMN:
                        left_out[f"{table.name}.{column.name}"] = MOST_OF_A_COLUMN
                    entries += [Entry(table.name, column.name, value) for value in values[:MOST_OF_A_COLUMN]]
        except sqlite3.Error as error:
            raise explain(error, path) from error
        finally:
            connection.close()
        return cls(entries, left_out=left_out)

    @classmethod
    def _read_server(cls, catalog: Catalog, database: DatabaseUrl) -> "ValueIndex":
        """Index the distinct text values of a server; of a large table those of a sample of its rows."""
        entries: list[Entry] = []
        left_out: dict[str, int] = {}
        with connect(database) as server:
            for table in catalog.tables:
                if table.is_view:  # its values are its tables'
                    continue
                rows = table.num_rows or 0
                share = SAMPLED_ROWS / rows if rows > MAX_SCANNED_ROWS else 1.0
                source = sampled_table(server.dialect.name, table, share=share)
                for column in table.columns:
                    if not any(isinstance(value, str) for value in column.frequent):
                        continue  # numbers, times, or nothing that was counted
                    text = sa.cast(source.c[column.name], sa.Text)
                    distinct = sa.select(text).distinct().where(sa.func.length(text).between(1, LONGEST))
                    found = server.execute(distinct.order_by(text).limit(MOST_OF_A_COLUMN + 1)).scalars()
                    values = [value for value in found if not _is_number(value)]
                    if len(values) > MOST_OF_A_COLUMN:
                        left_out[f"{table.name}.{column.name}"] = MOST_OF_A_COLUMN
                    entries += [Entry(table.name, column.name, value) for value in values[:MOST_OF_A_COLUMN]]
        return cls(entries, left_out=left_out)

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        content = {"entries": self.entries, "left_out": self.left_out}
        (folder / "values.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        if self._bm25 is not None:
            self._bm25.save(str(folder / "bm25"), show_progress=False)

    @classmethod
    def load(cls, folder: Path) -> "ValueIndex":
        """Read back what ``save`` wrote."""
        content = json.loads((folder / "values.json").read_text(encoding="utf-8"))
        entries = [Entry(*entry) for entry in content["entries"]]
        bm25 = bm25s.BM25.load(str(folder / "bm25"), show_progress=False) if entries else None
        return cls(entries, left_out=content["left_out"], bm25=bm25)

    def match(self, question: str) -> dict[ColumnName, list[str]]:
        """Find the values that a question speaks of.

        A value counts if at least half of its letters stand in the question as whole words; a value of up to three
        capital letters (IN, OR, US) must stand there in capitals, for it may be an English word.

        Returns:
            By column, at most three values, the best covered first.
        """
        spoken = _question_tokens(question)
        tokens = sorted(spoken - STOPWORDS)
        if self._bm25 is None or not tokens:
            return {}
        known = self._bm25.get_tokens_ids(tokens)
        if not known:
            return {}
        scores = self._bm25.get_scores_from_ids(known)
        order = np.lexsort((np.arange(len(scores)), -scores))[:CANDIDATES]
        found: list[tuple[float, float, Entry]] = []
        exact = set(re.findall(r"\w+", question))
        for index in order:
            if scores[index] <= 0:
                break
            entry = self.entries[int(index)]
            if len(entry.value) <= 3 and entry.value.isupper() and entry.value not in exact:
                continue
            covered = _covered(entry.value, spoken)
            if covered >= COVERED:
                found.append((-covered, -float(scores[index]), entry))
        matches: dict[ColumnName, list[str]] = {}
        for _, _, entry in sorted(found):
            values = matches.setdefault((entry.table, entry.column), [])
            if len(values) < PER_COLUMN:
                values.append(entry.value)
        return matches


def _distinct_texts(connection: sqlite3.Connection, table: str, column: str) -> Iterator[str]:
    quoted_table, quoted_column = (name.replace('"', '""') for name in (table, column))
    rows = connection.execute(
        f'SELECT DISTINCT "{quoted_column}" FROM "{quoted_table}"'
        f' WHERE typeof("{quoted_column}") = \'text\' AND length("{quoted_column}") BETWEEN 1 AND {LONGEST}'
        f" LIMIT {MOST_OF_A_COLUMN + 1}"
    )
    # U+FFFD stands where bytes were no UTF-8: such a value cannot be written in a query.
    return (value for (value,) in rows if "\ufffd" not in value and not _is_number(value))


def _is_number(text: str) -> bool:
    """Dates and numbers stored as text are copied from the question, not looked up."""
    return not any(letter.isalpha() for letter in text)


def _value_tokens(value: str) -> list[str]:
    """Words of a value, and all of them as one."""
    found = words(value)
    return [*found, "".join(found)] if len(found) > 1 else found


def _question_tokens(question: str) -> set[str]:
    """Words of a question, and each run of up to three of them as one."""
    found = words(question)
    runs = {"".join(found[i : i + n]) for n in range(2, LONGEST_RUN + 1) for i in range(len(found) - n + 1)}
    return {*found, *runs}


def _covered(value: str, spoken: set[str]) -> float:
    """The share of a value's letters that stand in the question as whole words."""
    found = words(value)
    if "".join(found) in spoken:
        return 1.0
    total = sum(map(len, found))
    share = sum(len(word) for word in found if word in spoken and word not in STOPWORDS) / total if total else 0.0
    # Names are cut short to their first word: "United" for "United Air Lines Inc.".
    if share and found[0] in spoken and found[0] not in STOPWORDS and len(found[0]) >= 4 and value[0].isupper():
        return max(share, COVERED)
    return share

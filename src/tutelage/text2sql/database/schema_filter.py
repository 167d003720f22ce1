"""Which columns stay when a database does not fit into a prompt.

Recall first: a column that is missing makes the right query impossible, one too many only makes it longer. So
columns are ranked, and as many as fit are kept, rather than those above a threshold. The ranking is lexical
(ours): words shared with the question, weighed by how rare they are in the schema, values that match it, and keys.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table

ColumnName = tuple[str, str]  # (table, column), as the catalog writes them

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[^\W_]+")
_STAR = re.compile(r"(?:\bselect|\bdistinct|\ball|,|\.)\s*\*", re.IGNORECASE)

MATCHED_VALUE = 3.0  # a value of the column stands in the question: worth three shared rare words
NEIGHBOUR = 0.3  # share of a neighbour's score; lets a junction table rank with what it joins


def words(text: str) -> list[str]:
    """Split text into lower-case words without a plural's s.

    >>> words("Cities, class_ids")
    ['citie', 'class', 'id']
    """
    found = _WORD.findall(text.lower())
    return [word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word for word in found]


def name_words(text: str) -> list[str]:
    """Split an identifier, or text that holds some, into words.

    >>> name_words("homeTeam_ids")
    ['home', 'team', 'id']
    """
    return words(_CAMEL.sub(" ", text))


def columns_in(sql: str, catalog: Catalog) -> frozenset[ColumnName]:
    """Columns that a query may use, judged by the names in it: too many rather than too few.

    A table that is named without any of its columns (``count(*)``) counts with its primary key, or its first column;
    with ``SELECT *`` all columns of the named tables count.
    """
    lowered = sql.lower()
    tokens = set(re.findall(r"\w+", lowered))

    def named(name: str) -> bool:
        name = name.lower()
        return name in tokens if re.fullmatch(r"\w+", name) else name in lowered

    star = _STAR.search(sql) is not None
    found: set[ColumnName] = set()
    for table in catalog.tables:
        if not named(table.name):
            continue
        used = [column.name for column in table.columns if star or named(column.name)]
        found.update((table.name, column) for column in used or table.primary_key or (table.columns[0].name,))
    return frozenset(found)


def rank_columns(
    catalog: Catalog,
    question: str,
    *,
    matches: Mapping[ColumnName, Sequence[object]],
    needed: Collection[ColumnName],
) -> list[ColumnName]:
    """Order all columns from the one least to be missed to the one most easily.

    Args:
        catalog: The database.
        question: Question and evidence.
        matches: Values that match the question, by column.
        needed: Columns that come before all others, such as the gold query's in training.
    """
    question_words = set(words(question))

    def said(text: str) -> set[str]:
        """The question's words that a name holds: as words of their own, or written together (countrylanguage)."""
        found = set(name_words(text))
        long = [word for word in found if len(word) >= 4]
        return {
            word
            for word in question_words
            if word in found or (len(word) >= 4 and any(word in w or w in word for w in long))
        }

    texts = {
        (table.name, column.name): said(f"{column.name} {column.spoken_name} {column.description} {column.comment}")
        for table in catalog.tables
        for column in table.columns
    }
    spread = Counter(word for text in texts.values() for word in text)

    def weight(shared: Collection[str]) -> float:
        return sum(math.log(1 + len(texts) / (1 + spread[word])) for word in sorted(shared))

    column_score: dict[ColumnName, float] = {
        key: weight(text) + (MATCHED_VALUE if matches.get(key) else 0.0) for key, text in texts.items()
    }
    own_score = {
        table.name: weight(said(f"{table.name} {table.comment}"))
        + max((column_score[table.name, column.name] for column in table.columns), default=0.0)
        for table in catalog.tables
    }
    neighbours: dict[str, set[str]] = {table.name: set() for table in catalog.tables}
    keys: set[ColumnName] = {(table.name, column) for table in catalog.tables for column in table.primary_key}
    for foreign in catalog.foreign_keys:
        if foreign.table in neighbours and foreign.referred_table in neighbours:
            neighbours[foreign.table].add(foreign.referred_table)
            neighbours[foreign.referred_table].add(foreign.table)
        keys.update((foreign.table, column) for column in foreign.columns)
        keys.update((foreign.referred_table, column) for column in foreign.referred_columns)

    best = {
        table.name: max((column_score[table.name, c.name] for c in table.columns), default=0.0)
        for table in catalog.tables
    }

    def score(table: Table, column: Column) -> float:
        key = (table.name, column.name)
        around = sorted((own_score[name] for name in neighbours[table.name] - {table.name}), reverse=True)[:2]
        total = own_score[table.name] + NEIGHBOUR * sum(around)
        # A key column joins what was asked for, whether or not a word names it.
        return total + (best[table.name] if key in keys else column_score[key])

    scored = [((table.name, column.name), score(table, column)) for table in catalog.tables for column in table.columns]
    needed = frozenset(needed)
    # sorted() is stable: equal scores keep the catalog's order.
    return [key for key, _ in sorted(scored, key=lambda item: (item[0] not in needed, -item[1]))]


def subset(catalog: Catalog, columns: Sequence[ColumnName], *, reorder: bool = False) -> Catalog:
    """Keep only some columns, and the keys whose columns all stay.

    Args:
        catalog: The database.
        columns: What stays.
        reorder: Whether tables and columns take the order of ``columns`` instead of the catalog's.
    """
    position = {key: index for index, key in enumerate(columns)}

    def stays(foreign: ForeignKey) -> bool:
        here = all((foreign.table, column) in position for column in foreign.columns)
        return here and all((foreign.referred_table, column) in position for column in foreign.referred_columns)

    tables: list[tuple[int, Table]] = []
    for table in catalog.tables:
        kept = [column for column in table.columns if (table.name, column.name) in position]
        if not kept:
            continue
        if reorder:
            kept.sort(key=lambda column: position[column.table, column.name])
        names = {column.name for column in kept}
        smaller = replace(
            table,
            columns=tuple(kept),
            # Half a primary key would claim that its columns are unique.
            primary_key=table.primary_key if names.issuperset(table.primary_key) else (),
            foreign_keys=tuple(key for key in table.foreign_keys if stays(key)),
        )
        tables.append((min(position[table.name, name] for name in names), smaller))
    if reorder:
        tables.sort(key=lambda item: item[0])
    return replace(catalog, tables=tuple(table for _, table in tables))

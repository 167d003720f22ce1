"""Facts that people's questions tell, where their SQL is known: the words that stand for a column, a value or a join.

A word of a question is *unexplained* where neither the names nor the values of its SQL account for it. What is
unexplained again and again where one column, value or join is used, and hardly elsewhere, is how people say it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tutelage.text2sql.database.nouns import is_verb
from tutelage.text2sql.database.schema import Catalog, Value
from tutelage.text2sql.explore.facts.fact import Fact, Subject, subject_of
from tutelage.text2sql.explore.reading import Reader
from tutelage.text2sql.explore.seeds import Seed
from tutelage.text2sql.explore.words import phrase, stem, stems

_FEWEST = 3  # questions that must say a word
_SHARE = 0.5  # of a subject's questions that must say it
_LIFT = 4.0  # how much more often than in others
_SMALL = {
    "a", "above", "all", "alphabetical", "also", "among", "an", "and", "any", "are", "as", "ascending", "at",
    "average", "be", "been", "below", "between", "both", "by", "can", "could", "count", "descending", "did",
    "different", "distinct", "do", "does", "each", "every", "find", "first", "for", "from", "give", "had", "has",
    "have", "her", "highest", "his", "how", "i", "id", "ids", "if", "in", "is", "it", "its", "know", "largest",
    "last", "least", "less", "like", "list", "lowest", "many", "maximum", "me", "mean", "minimum", "more", "most",
    "much", "name", "names", "no", "not", "number", "of", "on", "one", "only", "or", "order", "ordered", "other",
    "over", "per", "please", "return", "same", "show", "smallest", "so", "sort", "sorted", "sum", "tell", "than",
    "that", "the", "their", "them", "there", "these", "they", "this", "those", "three", "to", "total", "two", "under",
    "value", "values", "want", "was", "we", "were", "what", "when", "where", "whether", "which", "who", "whom",
    "whose", "with", "would", "you",
}  # fmt: skip
_TOO_COMMON = {stem(word) for word in _SMALL} | _SMALL


def facts_from_seeds(catalog: Catalog, seeds: Sequence[Seed]) -> Iterator[Fact]:
    """Yield synonyms of columns, what codes stand for, and verbs of keys, from this database's questions."""
    reader = Reader(catalog)
    said: list[dict[str, str]] = []  # of each question: its unexplained words, by stem
    used: dict[Subject, set[int]] = defaultdict(set)
    for seed in seeds:
        reading = reader.read(seed.sql) if seed.asks(catalog.db_id) and seed.question else None
        if reading is None or not reading.columns:
            continue
        number = len(said)
        literals = _literals(seed.sql, catalog)
        said.append(_unexplained(seed.question, [*reading.columns], [value for _, value in literals]))
        for table, column in reading.columns:
            used[Subject(table, (column,))].add(number)
        for (table, column), value in literals:
            if isinstance(value, int | float) or len(value.strip()) <= 3:
                used[Subject(table, (column,), value=value)].add(number)
        for key in catalog.foreign_keys:
            sides = zip(key.columns, key.referred_columns, strict=True)
            joins = {tuple(sorted(((key.table, a), (key.referred_table, b)))) for a, b in sides}
            if joins <= reading.joins:
                used[subject_of(key)].add(number)
    everywhere = Counter(word for words in said for word in words)
    for subject, numbers in used.items():
        found = _typical(numbers, said, everywhere)
        if not found:
            continue
        if subject.refers is not None:
            if verbs := [word for word in found if is_verb(word) and is_verb(word) != word]:
                yield Fact(subject, "verbs", list(verbs[:2]), "seeds", 0.6)
        elif subject.value is not None:
            yield Fact(subject, "code", found[0], "seeds", 0.6)
        else:
            yield Fact(subject, "synonyms", list(found[:3]), "seeds", 0.55)


def _literals(sql: str, catalog: Catalog) -> list[tuple[tuple[str, str], Value]]:
    """Values that a query compares columns with, where one column alone of its tables has the name."""
    try:
        tree = sqlglot.parse_one(sql, dialect="sqlite")
    except (SqlglotError, RecursionError):
        return []
    tables = {table.name.lower() for table in tree.find_all(exp.Table)}
    columns = {
        (column.name.lower()): (table.name, column.name)
        for table in catalog.tables
        if table.name.lower() in tables
        for column in table.columns
    }
    found: list[tuple[tuple[str, str], Value]] = []
    for node in tree.find_all(exp.EQ):
        # SQLite takes "F" in double quotes for a text where no column is called so.
        left, right = node.left, node.right
        if not isinstance(left, exp.Column) or left.name.lower() not in columns:
            continue
        if isinstance(right, exp.Literal):
            value: Value = right.this if right.is_string else float(right.this)
            if isinstance(value, float) and value == int(value):
                value = int(value)
        elif isinstance(right, exp.Column) and right.this.quoted and right.name.lower() not in columns:
            value = right.name
        else:
            continue
        found.append((columns[left.name.lower()], value))
    return found


def _unexplained(question: str, columns: Sequence[tuple[str, str]], values: Sequence[Value]) -> dict[str, str]:
    known = set().union(*(stems(table) | stems(column) for table, column in columns))
    known |= {part for value in values for part in stems(str(value))}
    words = {stem(word): word for word in re.findall(r"[a-z]{3,}", question.lower()) if word not in _SMALL}
    names = {stem(piece) for table, column in columns for name in (table, column) for piece in phrase(name).split()}
    return {root: word for root, word in words.items() if root not in known | names | _TOO_COMMON}


def _typical(numbers: set[int], said: Sequence[dict[str, str]], everywhere: Counter[str]) -> list[str]:
    """The words of some questions that others have much less often, most frequent first."""
    inside = Counter(root for number in numbers for root in said[number])
    others = len(said) - len(numbers)
    found = []
    for root, count in inside.most_common():
        share = count / len(numbers)
        elsewhere = (everywhere[root] - count + 0.5) / (others + 1)
        if count >= _FEWEST and share >= _SHARE and share >= _LIFT * elsewhere:
            found.append(
                Counter(said[number][root] for number in sorted(numbers) if root in said[number]).most_common(1)[0][0]
            )
    return found

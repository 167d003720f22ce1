"""Keeps evaluation questions and queries out of what is learnt: equal ones, and those that say nearly the same."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tutelage.text2sql.explore.words import stem

# Says how a thing is asked for, not what is asked for.
_ASKING_WORDS = (
    "a", "an", "the", "of", "for", "in", "on", "at", "to", "by", "from", "with", "and", "or", "is", "are", "was",
    "were", "be", "there", "their", "its", "his", "her", "what", "which", "who", "how", "show", "list", "give",
    "find", "return", "display", "report", "tell", "please", "me", "all", "each", "every", "any", "that", "whose",
    "have", "has", "had", "do", "does", "did", "can", "could", "you", "i", "want", "see", "along", "together",
    "well", "as", "also", "them", "it", "those", "these", "this", "get",
)  # fmt: skip
_ASKING = frozenset(map(stem, _ASKING_WORDS))
_NEAR = 0.85  # share of words, or of pairs of neighbouring words, that two questions have in common


@dataclass(frozen=True, slots=True)
class Meeting:
    """What a candidate came too near to."""

    what: str
    near: bool


def plain(question: str) -> str:
    """A question without case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", question.casefold()))


def content(question: str) -> frozenset[str]:
    """What a question is about: the stems of its words, without those that only ask."""
    return frozenset(stem(word) for word in re.findall(r"\w+", question.casefold())) - _ASKING


def _shingles(question: str) -> frozenset[tuple[str, str]]:
    words = [stem(word) for word in re.findall(r"\w+", question.casefold())]
    return frozenset(pairwise(words))


def canonical(tree: exp.Expr) -> exp.Expr:
    """A query without what does not change it: the case of names, quotes, aliases, spelt-out defaults.

    Args:
        tree: A parsed query; it is left as it is.
    """
    tree = tree.copy()
    for identifier in tree.find_all(exp.Identifier):
        identifier.set("this", identifier.this.lower())
        identifier.set("quoted", False)
    sources: dict[str, str] = {}
    for table in tree.find_all(exp.Table):
        sources[table.alias_or_name] = table.name
    for column in tree.find_all(exp.Column):
        if column.table:
            column.set("table", exp.to_identifier(sources.get(column.table, column.table)))
    if len(set(sources.values())) == 1:
        for column in tree.find_all(exp.Column):
            column.set("table", None)
    for table in tree.find_all(exp.Table):
        table.set("alias", None)
    for join in tree.find_all(exp.Join):
        join.set("kind", None)
    for ordered in tree.find_all(exp.Ordered):
        ordered.set("desc", bool(ordered.args.get("desc")))
    return tree


def _bag(tree: exp.Expr) -> tuple[tuple[str, int], ...]:
    """The parts of a canonical query in whatever order, without DISTINCT: a skeleton, with names and values."""
    parts: Counter[str] = Counter()
    for node in tree.walk():
        match node:
            case exp.Column():
                parts[f"column {node.name}"] += 1
            case exp.Table():
                parts[f"table {node.name}"] += 1
            case exp.Literal():
                parts[f"value {str(node.this).strip().casefold().removesuffix('.0')}"] += 1
            case exp.Ordered():
                parts[f"ordered {node.args.get('desc')}"] += 1
            case (
                exp.Identifier()
                | exp.Distinct()
                | exp.TableAlias()
                | exp.Alias()
                | exp.Paren()
                | exp.Cast()
                | exp.DataType()
            ):
                pass
            case _:
                parts[type(node).__name__] += 1
    return tuple(sorted(parts.items()))


class Guard:
    """Knows the questions and queries that must not be learnt."""

    def __init__(self) -> None:
        self._plain: set[str] = set()
        self._contents: list[frozenset[str]] = []
        self._shingles: list[frozenset[tuple[str, str]]] = []
        self._texts: list[str] = []
        self._with_word: dict[str, list[int]] = {}
        self._canonical: set[str] = set()
        self._bags: set[tuple[tuple[str, int], ...]] = set()

    @classmethod
    def of(cls, examples: Iterable[tuple[str, str | None]]) -> "Guard":
        """Guard these (question, SQL) pairs. SQL that does not parse is guarded as text."""
        guard = cls()
        for question, sql in examples:
            guard._add_question(question)
            if sql:
                guard._add_query(sql)
        return guard

    def _add_question(self, question: str) -> None:
        text = plain(question)
        if text in self._plain:
            return
        self._plain.add(text)
        index = len(self._contents)
        words = content(question)
        self._contents.append(words)
        self._shingles.append(_shingles(question))
        self._texts.append(question)
        for word in words:
            self._with_word.setdefault(word, []).append(index)

    def _add_query(self, sql: str) -> None:
        try:
            tree = canonical(sqlglot.parse_one(sql, dialect="sqlite"))
        except (SqlglotError, RecursionError):
            self._canonical.add(" ".join(sql.split()).lower())
            return
        self._canonical.add(tree.sql(dialect="sqlite"))
        self._bags.add(_bag(tree))

    def question(self, question: str) -> Meeting | None:
        """Find a guarded question that this one repeats, or nearly."""
        if plain(question) in self._plain:
            return Meeting(question, near=False)
        words = content(question)
        shared: Counter[int] = Counter(index for word in words for index in self._with_word.get(word, ()))
        pairs = _shingles(question)
        for index, common in shared.items():
            theirs = self._contents[index]
            if common < _NEAR * max(len(words), len(theirs)) * 0.8:
                continue
            alike = common / len(words | theirs)
            union = len(pairs | self._shingles[index])
            if alike >= _NEAR or (union and len(pairs & self._shingles[index]) / union >= _NEAR):
                return Meeting(self._texts[index], near=True)
        return None

    def query(self, tree: exp.Expr) -> Meeting | None:
        """Find a guarded query that this one repeats, or nearly; ``tree`` is canonical."""
        text = tree.sql(dialect="sqlite")
        if text in self._canonical:
            return Meeting(text, near=False)
        if _bag(tree) in self._bags:
            return Meeting(text, near=True)
        return None

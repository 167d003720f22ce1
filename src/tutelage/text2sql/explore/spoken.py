"""Whether a question speaks of what its query names: every literal, every column."""

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import exp

from tutelage.text2sql.database.catalog import Catalog, Column
from tutelage.text2sql.database.nouns import singular
from tutelage.text2sql.explore.words import phrase, stem, stems

# A question may speak of a column by these; keys and words are looked at by their stems.
_SAID_AS = {
    "age": "old older oldest young younger youngest aged",
    "height": "tall taller tallest short shorter shortest high",
    "weight": "heavy heavier heaviest light lighter lightest weigh weighs",
    "length": "long longer longest short shorter shortest",
    "duration": "long longer longest short shorter shortest last lasts lasted",
    "price": "expensive cheap cheaper cheapest cost costs",
    "cost": "expensive cheap cheaper cheapest price spent",
    "amount": "much total",
    "salary": "paid earn earns pay",
    "date": "when recent latest earliest before after since day first last",
    "year": "when recent latest earliest before after since",
    "time": "when early late earliest latest",
    "name": "named called who title",
    "title": "named called name",
    "gender": "male female men women sex",
    "sex": "male female men women gender",
    "population": "people populous inhabitants residents",
    "capacity": "hold holds seats",
    "size": "large larger largest big bigger biggest small smaller smallest",
    "area": "large larger largest big bigger biggest small smaller smallest size",
    "rank": "ranked ranking best",
    "country": "where from nation",
    "city": "where from town",
    "location": "where located place",
    "address": "where live lives",
    "born": "birth birthday",
    "birth": "born birthday",
    "email": "mail e-mail",
}
_VALUES_OF = {stem(key): {stem(word) for word in words.split()} for key, words in _SAID_AS.items()}
_SMALL_WORDS = ("of", "the", "a", "in", "for", "to", "is", "and", "or", "by", "on", "at", "if", "has", "was")
_EMPTY = set(map(stem, _SMALL_WORDS))
_COUNTED = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_NUMBERS = {word: number for number, word in enumerate(_COUNTED)} | {
    "dozen": 12, "hundred": 100, "once": 1, "twice": 2, "half": 50, "third": 3, "second": 2, "first": 1,
}  # fmt: skip
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FLAGS = {"t", "f", "y", "n", "yes", "no", "true", "false", "0", "1"}
_SEXES = {"m": {"male", "men", "man", "boys"}, "f": {"female", "women", "woman", "girls"}}


@dataclass(frozen=True, slots=True)
class Question:
    """A question, read once for all that is looked for in it."""

    text: str  # folded
    stems: frozenset[str]
    numbers: frozenset[float]

    @classmethod
    def read(cls, question: str) -> "Question":
        """Fold case and accents; find the words and the numbers."""
        text = fold(question)
        numbers = {
            float(match.replace(",", "")) for match in re.findall(r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?", text)
        }
        numbers |= {float(_NUMBERS[word]) for word in re.findall(r"[a-z]+", text) if word in _NUMBERS}
        return cls(text, frozenset(stems(question) | stems(text)), frozenset(numbers))


def fold(text: str) -> str:
    """Case, accents and spacing out of a text."""
    kept = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return " ".join(kept.casefold().split())


def says_text(question: Question, value: str, column: Column | None) -> bool:
    """Whether a text literal is spoken of; wildcards of LIKE do not count."""
    wanted = fold(value.strip("%_ "))
    if not wanted or wanted.startswith("%"):
        return True
    if re.search(rf"(?<!\w){re.escape(wanted)}", question.text) or (len(wanted) > 3 and wanted in question.text):
        return True
    if wanted in _FLAGS and column is not None:
        return True  # the column itself must be spoken of: "that are official"
    if wanted in _SEXES and any(word in question.text for word in _SEXES[wanted]):
        return True
    if re.fullmatch(r"-?\d+(\.\d+)?", wanted) and says_number(question, float(wanted)):
        return True
    if column is not None and column.value_description:
        # A code that its description explains: the explanation is what a person says.
        for line in re.split(r"[;\n]", column.value_description):
            explained = re.match(rf"\W*{re.escape(wanted)}\W*[:=-] *(.+)", fold(line))
            if explained and stems(explained[1]) & question.stems:
                return True
    return _says_date(question, wanted)


def _says_date(question: Question, wanted: str) -> bool:
    match = re.match(r"(\d{4})-(\d{2})-(\d{2})", wanted)
    if not match or int(match[1]) not in question.numbers:
        return False
    if (match[2], match[3]) in (("01", "01"), ("12", "31")):
        return True  # "before 2006"
    month = _MONTHS[int(match[2]) - 1] if 1 <= int(match[2]) <= 12 else ""
    return bool(month) and month in question.text and (int(match[3]) in question.numbers or match[3] == "01")


def says_number(question: Question, number: float) -> bool:
    """Whether a number is spoken of, in digits or words."""
    if not math.isfinite(number):  # 1e400
        return False
    if number in question.numbers or -number in question.numbers:
        return True
    if 0 < number < 1 and round(number * 100, 6) in question.numbers:
        return True  # 0.5 as 50 %
    if number >= 1_000_000 and number / 1_000_000 in question.numbers and "million" in question.text:
        return True
    if number >= 1000 and number / 1000 in question.numbers and "thousand" in question.text:
        return True
    text = str(int(number)) if number == int(number) else ""
    # 20060131 as 2006-01-31
    return len(text) == 8 and f"{text[:4]}-{text[4:6]}-{text[6:]}" in question.text


@lru_cache(maxsize=20_000)
def _ways(column: Column) -> tuple[frozenset[str], ...]:
    """The ways to speak of a column, each as the stems of which one must be heard."""
    names = [phrase(column.name), column.spoken_name, column.comment, column.description]
    ways = []
    for name in names:
        words = {stem(word) for word in re.findall(r"\w+", name)} - _EMPTY
        ways.append(frozenset(words | {other for word in words for other in _VALUES_OF.get(word, ())}))
    return tuple(way for way in ways if way)


def says_column(question: Question, column: Column) -> bool:
    """Whether a column is spoken of, by a word of its name or of what describes it, or by its table's for a name."""
    if any(way & question.stems for way in _ways(column)):
        return True
    last = phrase(column.name).split()[-1].lower()
    if singular(last) in ("name", "title", "id", "label", "code"):
        return bool(stems(column.table) & question.stems)
    return False


def literals(tree: exp.Expr, catalog: Catalog) -> Iterator[tuple[exp.Literal, Column | None]]:
    """The literals that a question must speak of, with the column each is compared with, in a qualified query."""
    for literal in tree.find_all(exp.Literal):
        parent = literal.parent
        if isinstance(parent, exp.Limit | exp.Offset | exp.Fetch) and literal.this in ("0", "1"):
            continue
        if isinstance(parent, exp.DataType | exp.DataTypeParam | exp.TimeToStr | exp.StrToTime):
            continue
        if str(literal.this).startswith("%") and literal.find_ancestor(exp.Func):
            continue  # strftime's format
        column = _compared_with(literal, catalog)
        if not literal.is_string and column is None and float(literal.this) in (0.0, 1.0, 100.0):
            continue  # "percentage", "ranked first", "at least one"
        yield literal, column


def _compared_with(literal: exp.Literal, catalog: Catalog) -> Column | None:
    predicate = literal.find_ancestor(exp.Predicate, exp.In, exp.Between, exp.Select)
    if predicate is None or isinstance(predicate, exp.Select):
        return None
    column = predicate.find(exp.Column)
    return resolve(column, catalog) if column is not None else None


def resolve(column: exp.Column, catalog: Catalog) -> Column | None:
    """The catalog's column that a qualified column is; None for one that a subquery makes."""
    select = column.find_ancestor(exp.Select)
    while select is not None:
        for table in _tables(select):
            if table.alias_or_name == column.table:
                try:
                    return catalog.column(table.name, column.name)
                except KeyError:
                    return None
        select = select.find_ancestor(exp.Select)
    return None


def _tables(select: exp.Select) -> Iterator[exp.Table]:
    sources = [select.args.get("from_"), *(select.args.get("joins") or ())]
    for source in sources:
        if source is not None and isinstance(source.this, exp.Table):
            yield source.this


def named_columns(tree: exp.Expr, catalog: Catalog) -> Iterator[Column]:
    """The columns that a question must speak of: not those that only tie tables together or count rows."""
    for node in tree.find_all(exp.Column):
        column = resolve(node, catalog)
        if column is not None and not _ties(node, column, catalog) and not _equals_literal(node):
            yield column


def _ties(node: exp.Column, column: Column, catalog: Catalog) -> bool:
    parent = node.parent
    if isinstance(parent, exp.EQ) and isinstance(parent.left, exp.Column) and isinstance(parent.right, exp.Column):
        return True
    if not _is_key(column, catalog):
        return False
    if isinstance(parent, exp.In | exp.Count | exp.Distinct | exp.Not | exp.Is):
        return True
    if isinstance(parent, exp.Group):
        select = node.find_ancestor(exp.Select)
        return select is not None and not any(shown.find(exp.Column) == node for shown in select.expressions)
    select = node.find_ancestor(exp.Select)
    if (select is not None and node in select.expressions) or isinstance(parent, exp.Alias):
        # What IN (SELECT key …), or a step that others use, hands on.
        outer = select.parent if select is not None else None
        return isinstance(outer, exp.In | exp.Subquery | exp.CTE)
    return False


def _is_key(column: Column, catalog: Catalog) -> bool:
    table = catalog.table(column.table)
    if column.name in table.primary_key or any(column.name in key.columns for key in table.foreign_keys):
        return True
    return any(
        key.referred_table.casefold() == column.table.casefold() and column.name in key.referred_columns
        for key in catalog.foreign_keys
    )


def _equals_literal(node: exp.Column) -> bool:
    """Whether a column stands beside a text, which speaks for it: singers from France."""
    parent = node.parent
    if isinstance(parent, exp.EQ | exp.Like):
        return (
            isinstance(parent.expression, exp.Literal)
            and parent.expression.is_string
            and parent.expression.this.strip("%_").lower() not in _FLAGS
        )
    if isinstance(parent, exp.In):
        return bool(parent.expressions) and all(
            isinstance(part, exp.Literal) and part.is_string for part in parent.expressions
        )
    return False

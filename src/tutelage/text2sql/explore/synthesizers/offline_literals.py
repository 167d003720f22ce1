"""Literals from real rows: what a condition can say of a column so that it keeps some rows and not all."""

from collections.abc import Callable, Sequence
from math import floor, log10

import numpy as np

from tutelage.text2sql.database.catalog import Value
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.explore.facts.roles import Profile, Roles, as_number
from tutelage.text2sql.explore.synthesizers.offline_sql import SqlWriter
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    Aggregate,
    Between,
    Compare,
    Comparison,
    Having,
    InYear,
    Like,
    Missing,
    OneOf,
    Query,
    Ref,
    Simple,
)

_MAX_VALUES = 300
_MAX_LENGTH = 60  # characters of a literal that a person would type


class Literals:
    """Makes conditions whose values stand in the rows that a query has left."""

    def __init__(self, *, roles: Roles, writer: SqlWriter, execute: Callable[[str], Result]) -> None:
        self._roles, self._writer, self._execute = roles, writer, execute

    def _values(self, query: Query, ref: Ref, profile: Profile) -> list[Value]:
        """The distinct values a column takes under the query's conditions, sorted."""
        if not query.where and len(query.nodes) == 1:
            return list(profile.values)
        rows = self._roles.sampled_rows(query.nodes[0].table)
        result = self._execute(self._writer.values(query, ref, rows=rows, limit=_MAX_VALUES))
        if rows and len(result.rows) < 2:  # a condition that few rows meet, of which the sample has none
            result = self._execute(self._writer.values(query, ref, rows="", limit=_MAX_VALUES))
        reckoned = profile.numeric_text or profile.fixed_width
        known = {as_number(value) if reckoned else value for value in profile.values}
        values = {as_number(row[0]) if reckoned else row[0] for row in result.rows}
        # What was left out of the profile (blanks, long text, blobs) makes no literal.
        common = [value for value in values & known if value is not None]
        return sorted(common, key=lambda value: (isinstance(value, str), value))

    def condition(self, query: Query, ref: Ref, rng: np.random.Generator, *, single: bool) -> Simple | None:
        """Choose a condition on a column; None where nothing sensible can be said.

        Args:
            query: What the condition is added to.
            ref: The column.
            rng: Chooses.
            single: Rows are counted, sorted, combined or told apart: a condition that leaves one named row is no help.
        """
        profile = self._roles.of(query.nodes[ref.node].table, ref.column)
        if profile.role in ("key", "code", "empty"):
            return None
        if profile.has_gaps and profile.role != "text" and rng.random() < 0.04:
            return Missing("missing", ref, bool(rng.random() < 0.5))
        values = self._values(query, ref, profile)
        if len(values) < 2:
            return None
        if profile.role == "flag":
            return Compare("compare", ref, "=", _one(values, rng))
        if profile.role == "date":
            return self._date(ref, values, profile, rng)
        if profile.comparable:
            return self._number(ref, values, profile, rng)
        return self._text(ref, values, profile, rng, single=single)

    def _text(
        self, ref: Ref, values: list[Value], profile: Profile, rng: np.random.Generator, *, single: bool
    ) -> Simple | None:
        # Where both 'US' and 'US ' stand in the rows, nobody can say which of them is meant.
        bare = {value for value in profile.values if isinstance(value, str) and value == value.strip()}
        typed = [
            value
            for value in values
            if isinstance(value, str) and sayable(value) and (value in bare or value.strip() not in bare)
        ]
        if not typed:
            return None
        chance = rng.random()
        if profile.unique and profile.role == "category" and single:
            return None
        if profile.role == "category":
            if len(typed) > 2 and chance < 0.15:
                low, high = sorted(int(index) for index in rng.permutation(len(typed))[:2])
                return OneOf("one_of", ref, (typed[low], typed[high]))
            if chance < 0.27 and not profile.has_gaps:
                return Compare("compare", ref, "!=", _one(typed, rng))
            return Compare("compare", ref, "=", _one(typed, rng))
        if profile.role == "name" and chance < 0.4 and not single:
            return Compare("compare", ref, "=", _one(typed, rng))
        if profile.role == "text" and chance < 0.5 and not single:
            return Compare("compare", ref, "=", _one(typed, rng))
        text = str(_one(typed, rng))
        words = [word for word in text.split() if len(word) >= 4 and word.isalpha()]
        if words and len(text.split()) > 1 and rng.random() < 0.6:
            return Like("like", ref, "contains", str(_one(words, rng)))
        if text[:1].isalpha() and text[:1].isascii() and profile.role == "name":
            return Like("like", ref, "starts", text[0].upper())
        return None

    def _number(self, ref: Ref, values: list[Value], profile: Profile, rng: np.random.Generator) -> Simple | None:
        numbers = [float(value) for value in values]
        chance = rng.random()
        if profile.role in ("year", "ordinal") and chance < 0.35:
            return Compare("compare", ref, "=", values[int(rng.integers(len(values)))])
        if profile.role == "measure" and profile.whole and len(values) <= 12 and chance < 0.12:
            return Compare("compare", ref, "=", values[int(rng.integers(len(values)))])
        exact = profile.role in ("year", "ordinal")
        if len(values) >= 6 and chance > 0.87:
            low = _near(numbers[len(numbers) // 4], numbers, exact=exact)
            high = _near(numbers[3 * len(numbers) // 4], numbers, exact=exact)
            if low < high:
                return Between("between", ref, low, high)
        middle = float(np.quantile(numbers, 0.15 + 0.7 * rng.random()))
        value = _near(middle, numbers, exact=exact)
        more: Comparison = ">" if rng.random() < 0.75 else ">="
        less: Comparison = "<" if rng.random() < 0.75 else "<="
        op = more if rng.random() < 0.55 else less
        kept = sum(_holds(number, op, float(value)) for number in numbers)
        return Compare("compare", ref, op, value) if 0 < kept < len(numbers) else None

    def _date(self, ref: Ref, values: list[Value], profile: Profile, rng: np.random.Generator) -> Simple | None:
        if profile.dated == "compact":
            value = values[int(rng.integers(1, len(values)))]
            return Compare("compare", ref, ">=" if rng.random() < 0.5 else "<", value)
        days = sorted({str(value).strip()[:10] for value in values})
        years = sorted({day[:4] for day in days})
        if len(years) > 1 and rng.random() < 0.4:
            return InYear("in_year", ref, int(str(_one(years, rng))))
        if len(days) < 2:
            return None
        # A day compares as text with what has a time, so only these two mean what is said of days.
        day = days[int(rng.integers(1, len(days)))]
        return Compare("compare", ref, ">=" if rng.random() < 0.5 else "<", day)

    def threshold(
        self, aggregate: Aggregate, amounts: Sequence[float], rng: np.random.Generator, *, upwards: bool
    ) -> Having | None:
        """Choose what groups must reach; ``amounts`` are the groups' aggregates, sorted.

        ``upwards``: things that have none form no group, so "fewer than" would leave them out.
        """
        ops: list[Comparison] = (
            [">=", ">=", ">", ">", ">" if upwards else "<"] if aggregate.function == "count" else [">", ">", "<"]
        )
        op = ops[int(rng.integers(len(ops)))]
        middle = float(np.quantile(amounts, 0.2 + 0.6 * rng.random()))
        value = float(round(middle)) if aggregate.function == "count" else float(_near(middle, amounts, exact=False))
        kept = sum(_holds(amount, op, value) for amount in amounts)
        if not 0 < kept < len(amounts) or (aggregate.function == "count" and value < 1):
            return None
        if aggregate.function == "count" and value == 1 and op != ">":
            return None
        return Having(aggregate, op, int(value) if value == int(value) else value)


def sayable(value: str) -> bool:
    """Whether a text can stand in a question: short, one line, something to read."""
    text = value.strip()
    return (
        0 < len(text) <= _MAX_LENGTH
        and text.isprintable()
        and any(letter.isalnum() for letter in text)
        and '"' not in text
    )


def _one(values: Sequence[Value], rng: np.random.Generator) -> Value:
    return values[int(rng.integers(len(values)))]


def _holds(number: float, op: Comparison, value: float) -> bool:
    return {
        ">": number > value,
        ">=": number >= value,
        "<": number < value,
        "<=": number <= value,
        "=": number == value,
        "!=": number != value,
    }[op]


def _near(value: float, numbers: Sequence[float], *, exact: bool) -> int | float:
    """A value that a person would say in place of this one: two digits that count, or a real one when ``exact``."""
    if exact or value == 0:
        nearest = min(numbers, key=lambda number: abs(number - value))
        return int(nearest) if nearest == int(nearest) else nearest
    whole = all(number == int(number) for number in numbers)
    digits = 1 - floor(log10(abs(value)))
    rounded = round(value, digits if not whole else min(digits, 0))
    return int(rounded) if rounded == int(rounded) else rounded

"""What a sentence about a column says, by patterns: its unit, what its values stand for, which of them are missing."""

import re
from collections.abc import Iterator

from tutelage.text2sql.database.schema import Column, Value

# At the end of a name (height_cm), or after "in" and "unit of" in a sentence.
UNITS = {
    "cm": "centimetres", "mm": "millimetres", "km": "kilometres", "kmh": "kilometres per hour", "ft": "feet",
    "kg": "kilograms", "lb": "pounds", "lbs": "pounds", "mph": "miles per hour", "sec": "seconds", "secs": "seconds",
    "mins": "minutes", "ms": "milliseconds", "hrs": "hours", "usd": "US dollars", "eur": "euros",
    "gbp": "pounds sterling", "pct": "percent", "percentage": "percent", "celsius": "degrees Celsius",
    "fahrenheit": "degrees Fahrenheit", "kb": "kilobytes", "mb": "megabytes", "gb": "gigabytes", "hz": "hertz",
    "sqft": "square feet", "inch": "inches", "centimeter": "centimetres", "centimeters": "centimetres",
    "millimeter": "millimetres", "millimeters": "millimetres", "kilometer": "kilometres", "kilometers": "kilometres",
    "meter": "metres", "meters": "metres", "kilogram": "kilograms", "gram": "grams", "dollar": "dollars",
    "euro": "euros", "cent": "cents", "pound": "pounds", "mile": "miles", "second": "seconds", "minute": "minutes",
    "hour": "hours", "day": "days", "week": "weeks", "month": "months", "knot": "knots", "litre": "litres",
    "liter": "litres", "liters": "litres", "million": "millions", "thousand": "thousands", "$": "US dollars",
    "°c": "degrees Celsius", "°f": "degrees Fahrenheit", "%": "percent",
}  # fmt: skip
UNITS |= {unit: unit for unit in tuple(UNITS.values())}
_UNIT_NAMES = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_UNIT = re.compile(
    rf"\bunits?(?: of [\w ]{{1,40}}?)? *(?:is|are|:|=) *(?:in )?(?:the )?(?P<said>{_UNIT_NAMES})(?!\w)"
    rf"|(?:\b(?:measured|given|expressed|recorded|stored|counted) |[(,] *)in (?:the )?(?P<given>{_UNIT_NAMES})(?!\w)"
    rf"|\bin (?P<last>{_UNIT_NAMES})(?!\w)(?= *(?:[.,;)]|$))",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"\b(?:missing|unknown|undefined|unspecified|no (?:data|value|information)|not (?:known|available|recorded|given|"
    r"applicable|specified|reported|measured))\b|\bn/a\b",
    re.IGNORECASE,
)
_MEANS = r"(?:means?|stands? for|refers? to|represents?|denotes?|indicates?|=|:|->|→)"
_QUOTES = "'\"`‘’“”"
_LONGEST = 60  # characters that a code stands for


def unit_in(text: str) -> str | None:
    """The unit that a sentence gives: "The unit of height is centimeter", "measured in km", "weight (in pounds)"."""
    if found := _UNIT.search(text):
        return UNITS[(found["said"] or found["given"] or found["last"]).lower()]
    return None


def nulls_in(text: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The values of a column of which a text says that they stand for nothing known: "If it is 0, it is missing"."""
    found: dict[Value, None] = {}
    for clause in re.split(r"[;\n]|\.(?:\s|$)", text):
        if not (unknown := _UNKNOWN.search(clause)):
            continue
        before = clause[: unknown.start()]
        for match in re.finditer(
            rf"[{_QUOTES}]([^{_QUOTES}]*)[{_QUOTES}]|(?<![\w.])(-?\d+(?:\.\d+)?)(?![\w.])", before
        ):
            token = match[1] if match[1] is not None else match[2]
            found |= dict.fromkeys(value for value in values if str(value).strip().casefold() == token.casefold())
            if match[2] is not None and not any(str(value) == token for value in values):
                # A value that is rare may not be among those that were counted, and is a marker all the same.
                number = float(token)
                found[int(number) if number == int(number) else number] = None
    return tuple(found)


def codes_in(text: str, values: tuple[Value, ...]) -> Iterator[tuple[Value, str]]:
    """What values of a column stand for, where a text says it: "M: male; F: female", "1 means yes", "0 (no)"."""
    for value in values:
        written = str(value).strip()
        if not _is_code(written):
            continue
        quoted = rf"(?<![\w.{re.escape(written[0])}])[{_QUOTES}]?{re.escape(written)}[{_QUOTES}]?"
        said = rf"[{_QUOTES}]?(?:that |the )?(?P<text>[A-Za-z][^;\n]{{1,200}})"
        match = re.search(rf"{quoted} *(?:{_MEANS} +|: *| [-–—] | \(|, (?:that )?means? ){said}", text)
        if not match:
            match = re.search(rf"{quoted} (?:is |for ){said}", text) if len(written) <= 3 else None
        if match is None:
            continue
        meaning = _first_part(match["text"], values)
        if 1 < len(meaning) <= _LONGEST and meaning.casefold() != written.casefold() and not _UNKNOWN.search(meaning):
            yield value, meaning


def _is_code(written: str) -> bool:
    """Whether a value may stand for something else; a whole word stands for itself."""
    return 0 < len(written) <= 20 and (len(written) <= 2 or not written.isalpha() or written.isupper())


def _first_part(text: str, values: tuple[Value, ...]) -> str:
    """Cut what follows a code before the next one, and at the end of its sentence."""
    others = "|".join(re.escape(str(value)) for value in values if str(value).strip())
    text = re.split(r"\.(?:\s|$)|[)\]]", text)[0]
    text = re.split(
        rf"(?:,| and| or)? *[{_QUOTES}(]?(?<!\w)(?:{others})[{_QUOTES}]? *(?:{_MEANS}|[-–—(]|is |for )", text
    )[0]
    return text.split(",")[0].strip(f" {_QUOTES}•*-")


def column_values(column: Column) -> tuple[Value, ...]:
    """The values that a text may speak of."""
    ends = (column.minimum, column.maximum)
    return tuple(dict.fromkeys([*column.frequent, *(value for value in ends if value is not None)]))

"""English for identifiers: names split into words, plurals, and which words speak of which column."""

import re
from functools import lru_cache

from tutelage.text2sql.database.nouns import is_noun, is_plural, plural, singular

# Spelled out in a question; keys are lower case.
ABBREVIATIONS = {
    "abbr": "abbreviation", "abbrev": "abbreviation", "acc": "account", "acct": "account", "addr": "address",
    "amt": "amount", "appr": "approval", "arr": "arrival", "avg": "average", "cat": "category", "ccy": "currency",
    "cd": "code", "cert": "certificate", "cnt": "count", "crtd": "created", "cust": "customer", "dep": "departure",
    "dept": "department", "desc": "description", "dest": "destination", "dist": "distance", "dob": "date of birth",
    "dt": "date", "emp": "employee", "fk": "key", "fname": "first name", "freq": "frequency", "grp": "group",
    "hr": "hour", "ht": "height", "lang": "language", "lat": "latitude", "lname": "last name", "lng": "longitude",
    "loc": "location", "manuf": "manufacturer", "max": "maximum", "mfr": "manufacturer", "mgr": "manager",
    "min": "minimum", "mname": "middle name", "nbr": "number", "num": "number", "org": "organization",
    "pct": "percentage", "perc": "percentage", "prereq": "prerequisite", "prev": "previous", "prod": "product",
    "qty": "quantity", "rep": "representative", "sched": "scheduled", "stu": "student", "tel": "telephone",
    "temp": "temperature", "tot": "total", "ts": "timestamp", "tx": "transaction", "txn": "transaction",
    "wt": "weight", "yn": "", "yr": "year",
}  # fmt: skip
_INITIALS = {"f": "first", "l": "last", "m": "middle"}  # of names: LName
_ACRONYMS = {"id", "tv", "url", "usa", "uk", "gdp", "gnp", "mpg", "isbn", "ssn", "ppv", "iso", "ip", "cd", "dvd", "pdf"}


def _pieces(name: str) -> list[str]:
    """Split snake_case, camelCase and digits; acronyms stay together."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", re.sub(r"[\W_]+", " ", name))
    return [piece for piece in re.sub(r"(?<=[a-z]{3})(?=\d)", " ", spaced).split() if piece]


@lru_cache(maxsize=50_000)
def phrase(name: str) -> str:
    """Say an identifier as words: ``Num_of_Ticket`` → ``number of tickets``, ``StuID`` → ``student ID``."""
    pieces = _pieces(name)
    if not pieces:
        return name
    shouted = name.upper() == name and (len(pieces) > 1 or len(name) > 4)
    words: list[str] = []
    for piece in pieces:
        low = piece.lower()
        if low in _ACRONYMS or (
            piece.isupper() and 2 <= len(piece) <= 4 and not shouted and low not in ABBREVIATIONS and not is_noun(low)
        ):
            words.append(piece.upper())
        else:
            words.extend(ABBREVIATIONS.get(low, low).split())
    # "Pay_per_view_PPV": the acronym says nothing that was not said.
    last = words[-1].lower() if words else ""
    if len(words) > 2 and words[-1].isupper() and "".join(word[0] for word in words[:-1]).lower() == last:
        words.pop()
    if len(words) > 1 and words[-1] in ("millions", "thousands", "billions", "percent", "meters", "minutes", "km"):
        words.insert(-1, "in")
    if len(words) > 1 and words[-1] == "m" and words[-2].endswith("s"):
        words[-1:] = ["in", "millions"]
    if len(words) > 1 and words[-1] in ("old", "new"):
        words.insert(0, words.pop())
    if len(words) == 2 and words[0].lower() in _INITIALS and words[1] in ("name", "nm"):
        words = [_INITIALS[words[0].lower()], "name"]
    if len(words) > 1 and words[-1] == "no":
        words[-1] = "number"
    if len(words) == 2 and words[1] == "count":
        words = ["number", "of", plural(words[0])]
    if len(words) > 1 and words[0] == "number" and words[1] != "of" and is_plural(words[-1]):
        words.insert(1, "of")
    if len(words) > 2 and words[:2] == ["number", "of"] and not is_plural(words[-1]):
        words[-1] = plural(words[-1])
    if len(words) > 1 and words[0] == "if":
        words.pop(0)
    if len(words) > 1 and words[-1] == "ID":
        words[-2] = singular(words[-2])
    return " ".join(words) or name


# A phrase's head stands before the first of these: "number of staff" → numbers of staff.
_HEAD_ENDS = re.compile(
    r" (?:of|in|from|to|on|at|for|by|per|with|and|or|made|won|spent|paid|sold) | \w+ed $"
    r"|[ ,]*[(,]"
)


def plural_phrase(said: str) -> str:
    """Form a noun phrase's plural at its head, or at both of two: dates and hours."""
    if both := re.fullmatch(r"((?:\w+ )?\w+) (and|or) (\w+)", said):
        return f"{plural_phrase(both[1])} {both[2]} {plural(both[3])}"
    match = _HEAD_ENDS.search(said + " ")
    head, rest = (said[: match.start()], said[match.start() :]) if match and match.start() else (said, "")
    words = head.split(" ")
    words[-1] = plural(words[-1])
    return " ".join(words) + rest


def singular_phrase(said: str) -> str:
    """Form a noun phrase's singular at its head."""
    match = _HEAD_ENDS.search(said + " ")
    head, rest = (said[: match.start()], said[match.start() :]) if match and match.start() else (said, "")
    words = head.split(" ")
    words[-1] = singular(words[-1])
    return " ".join(words) + rest


def article(said: str) -> str:
    """Choose ``a`` or ``an`` for what follows."""
    first = said.lstrip("'\"").split(" ")[0]
    if first.isupper() and 2 <= len(first) <= 4:
        return "an" if first[0] in "AEFHILMNORSX" else "a"
    low = first.lower()
    if low.startswith(("uni", "use", "usu", "eu", "one", "once", "ur")) and not low.startswith(("unin", "unim", "urb")):
        return "a"
    if low.startswith(("hour", "honest", "honor", "heir", "8", "11", "18")):
        return "an"
    return "an" if low[:1] in "aeiou" else "a"


def listed(parts: list[str], conjunction: str = "and") -> str:
    """Join phrases as a list is said: ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {conjunction} {parts[-1]}"


_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def spoken_number(number: int) -> str:
    """Say a small whole number in words."""
    return _NUMBER_WORDS[number] if 0 <= number <= 10 else str(number)


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """Cut a word to what its inflected forms share; crude, for matching only."""
    low = singular(word.lower())
    for ending in (
        "ations",
        "ation",
        "ities",
        "ity",
        "ings",
        "ing",
        "ment",
        "ies",
        "ied",
        "ed",
        "es",
        "al",
        "ly",
        "or",
        "er",
    ):
        if low.endswith(ending) and len(low) - len(ending) >= 4:
            low = low[: -len(ending)]
            break
    return low.rstrip("e") if len(low) > 4 else low


def stems(text: str) -> set[str]:
    """The stems of a text's words; an identifier in it counts by its parts."""
    return {stem(word) for piece in re.findall(r"\w+", text) for word in [*phrase(piece).split(), piece]}

"""Plural and singular of English nouns, as tables and columns are named with them, and the verbs behind words."""

from functools import lru_cache

# Where the dictionary's first form is not what people say of rows.
_PLURALS = {
    "person": "people", "staff": "staff", "axis": "axes", "basis": "bases", "datum": "data", "media": "media",
    "man": "men", "aircraft": "aircraft",
}  # fmt: skip
_SINGULARS = {plural: singular for singular, plural in _PLURALS.items()} | {"data": "data", "movies": "movie"}
# Said the same way for one and for many.
UNCOUNTABLE = {
    "attendance", "baggage", "capital", "content", "data", "details", "earnings", "equipment", "evidence", "expertise",
    "fun", "furniture", "gear", "health", "information", "knowledge", "luggage", "mail", "money", "music", "news",
    "progress", "research", "sales", "software", "staff", "traffic", "training", "visibility", "wealth", "weather",
    "work", "metadata", "feedback", "physics", "mathematics", "gdp", "gnp", "mpg", "savings", "goods", "currency",
    "killed", "injured", "elevation", "pay", "humidity", "precipitation", "worth", "wind", "pressure", "horsepower",
}  # fmt: skip


@lru_cache(maxsize=50_000)
def _lemma(word: str) -> str | None:
    """The singular of a noun in the dictionary, which may be the noun itself; None for what is no noun there."""
    from lemminflect import getAllLemmas  # here: its dictionary takes half a second to load

    found = getAllLemmas(word, upos="NOUN").get("NOUN", ())
    return str(found[0]) if found else None


def is_noun(word: str) -> bool:
    """Whether the dictionary has a noun in its singular."""
    return _lemma(word.lower()) == word.lower()


@lru_cache(maxsize=50_000)
def is_verb(word: str) -> str | None:
    """The verb that a word is a form of: ``stationed`` → ``station``; None where it is none."""
    from lemminflect import getAllLemmas

    found = getAllLemmas(word.lower(), upos="VERB").get("VERB", ())
    return str(found[0]) if found else None


def _like(word: str, form: str) -> str:
    return form.capitalize() if word[:1].isupper() and word[1:].islower() else form


def _ends_as(low: str) -> str | None:
    """The longest end of a compound that the dictionary knows: ``superheroes`` ends as heroes do."""
    return next((low[cut:] for cut in range(1, len(low) - 3) if _lemma(low[cut:])), None)


@lru_cache(maxsize=50_000)
def is_plural(word: str) -> bool:
    """Whether a noun's form is its plural, or it has no other."""
    low = word.lower()
    if low in UNCOUNTABLE or low in _SINGULARS:
        return True
    return singular(word) != word


@lru_cache(maxsize=50_000)
def plural(word: str) -> str:
    """Form a noun's plural; a noun that is plural already, or has none, comes back as it is."""
    from lemminflect import getInflection

    low = word.lower()
    if low in _PLURALS:
        return _like(word, _PLURALS[low])
    if is_plural(word) or low[-1:].isdigit() or not low[-1:].isalpha():
        return word
    if word.isupper():
        return word + "s"
    end = low if _lemma(low) else _ends_as(low)
    forms = getInflection(end, "NNS", inflect_oov=False) if end else ()
    if forms:
        return _like(word, low[: len(low) - len(end or "")] + str(forms[0]))
    if low.endswith("y") and low[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if low.endswith(("s", "x", "z", "ch", "sh")) else "s")


@lru_cache(maxsize=50_000)
def singular(word: str) -> str:
    """Form a noun's singular."""
    low = word.lower()
    if low in _SINGULARS:
        return _like(word, _SINGULARS[low])
    if low in UNCOUNTABLE or len(low) < 4:
        return word
    if low.endswith("s") and word[:-1].isupper():
        return word[:-1]  # IDs
    if lemma := _lemma(low):
        return word if lemma == low else _like(word, lemma)
    if not low.endswith("s") or low.endswith(("ss", "us", "is")) or is_verb(low):
        return word
    if (end := _ends_as(low)) and len(end) > 3:
        return _like(word, low[: len(low) - len(end)] + (_lemma(end) or end))
    return word[:-3] + "y" if low.endswith("ies") and len(low) > 4 else word[:-1]

"""Plural and singular of English nouns, as tables and columns are named with them."""

import re

_IRREGULAR = {
    "person": "people", "child": "children", "man": "men", "woman": "women", "foot": "feet", "datum": "data",
    "series": "series", "species": "species", "staff": "staff", "analysis": "analyses", "address": "addresses",
    "status": "statuses", "bus": "buses", "gas": "gases", "goose": "geese", "mouse": "mice", "life": "lives",
    "wife": "wives", "half": "halves", "shelf": "shelves", "leaf": "leaves", "criterion": "criteria",
    "bonus": "bonuses", "campus": "campuses", "virus": "viruses", "census": "censuses", "basis": "bases",
    "crisis": "crises", "axis": "axes", "aircraft": "aircraft", "quiz": "quizzes", "movie": "movies", "tie": "ties",
    "lens": "lenses", "radius": "radii", "diagnosis": "diagnoses", "thesis": "theses", "hypothesis": "hypotheses",
    "hero": "heroes", "potato": "potatoes", "veto": "vetoes", "echo": "echoes", "cookie": "cookies", "likes": "likes",
}  # fmt: skip
_SINGULAR = {plural: singular for singular, plural in _IRREGULAR.items()}
# Said the same way for one and for many.
UNCOUNTABLE = {
    "attendance", "baggage", "capital", "content", "data", "details", "earnings", "equipment", "evidence", "expertise",
    "fun", "furniture", "gear", "health", "information", "knowledge", "luggage", "mail", "money", "music", "news",
    "progress", "research", "sales", "software", "staff", "traffic", "training", "visibility", "wealth", "weather",
    "work", "metadata", "feedback", "physics", "mathematics", "gdp", "gnp", "mpg", "savings", "goods", "currency",
    "killed", "injured", "elevation", "pay", "humidity", "precipitation", "worth", "wind", "pressure", "horsepower",
}  # fmt: skip
_SINGULAR_IN_S = {"address", "status", "bus", "gas", "bonus", "campus", "lens", "class", "analysis", "basis", "axis"}


def is_plural(word: str) -> bool:
    """Whether a noun's form is its plural."""
    low = word.lower()
    if low in _SINGULAR or low in UNCOUNTABLE:
        return True
    return len(low) > 3 and low.endswith("s") and not low.endswith(("ss", "us", "is")) and low not in _SINGULAR_IN_S


def _like(word: str, form: str) -> str:
    return form.capitalize() if word[:1].isupper() and word[1:].islower() else form


def plural(word: str) -> str:
    """Form a noun's plural; a noun that is plural already, or has none, comes back as it is."""
    low = word.lower()
    if low in _IRREGULAR:
        return _like(word, _IRREGULAR[low])
    if low in UNCOUNTABLE or low in _SINGULAR or is_plural(word) or low[-1:].isdigit():
        return word
    if word.isupper():
        return word + "s"
    if re.search(r"[^aeiou]y$", low):
        return word[:-1] + "ies"
    if low.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    return word + "s"


def singular(word: str) -> str:
    """Form a noun's singular."""
    low = word.lower()
    if low in _SINGULAR:
        return _like(word, _SINGULAR[low])
    if low in UNCOUNTABLE or not is_plural(word):
        return word
    if low.endswith("ies") and len(low) > 4:
        return word[:-3] + "y"
    if low.endswith(("sses", "xes", "zes", "ches", "shes", "uses")) and low not in ("houses", "causes", "clauses"):
        return word[:-2]
    return word[:-1]

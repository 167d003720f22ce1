"""Facts that names tell: what tables and columns are called, units, what a key leads to, and verbs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from tutelage.text2sql.database.nouns import UNCOUNTABLE, is_noun, is_plural, is_verb, singular
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.explore.facts.fact import Fact, subject_of
from tutelage.text2sql.explore.facts.roles import STANDS_FOR, STATISTIC
from tutelage.text2sql.explore.facts.sentences import UNITS, unit_in
from tutelage.text2sql.explore.words import phrase, plural_phrase, singular_phrase

RoleOf: TypeAlias = Mapping[tuple[str, str], str]  # by table and column

# Parts of table names that say how it is stored, not what it is.
_STORAGE = {
    "other",
    "tbl",
    "table",
    "data",
    "list",
    "info",
    "information",
    "dim",
    "fact",
    "lookup",
    "ref",
    "record",
    "records",
}
_PERSONS = {
    "person", "people", "employee", "student", "customer", "user", "member", "patient", "teacher", "author", "player",
    "client", "driver", "manager", "instructor", "staff", "doctor", "physician", "nurse", "guest", "passenger",
    "candidate", "artist", "actor", "singer", "director", "owner", "professor", "hero", "superhero",
}  # fmt: skip
_PERSONAL = {
    "first name", "last name", "gender", "sex", "birth date", "birthday", "date of birth", "nationality", "salary",
    "surname", "middle name",
}  # fmt: skip
_KEY_WORDS = {"id", "code", "key", "number", "no", "fk", "ref"}
_PREPOSITIONS = {"of", "from", "to", "in", "on", "by", "for", "at", "with"}


def facts_from_catalog(catalog: Catalog, roles: RoleOf) -> Iterator[Fact]:
    """Yield what the names of tables, columns and keys say; ``roles`` says what columns are for."""
    for table in catalog.tables:
        about, noun = subject_of(table), table_noun(table, catalog)
        yield Fact(about, "spoken", noun, "catalog", 0.7)
        if is_persons(table, noun):
            yield Fact(about, "persons", True, "catalog", 0.85)
        if table.comment:
            yield Fact(about, "meaning", " ".join(table.comment.split()), "catalog", 0.95)
        names = column_names(table, noun, catalog, roles)
        for column in table.columns:
            yield Fact(subject_of(column), "spoken", names[column.name], "catalog", 0.7)
            if unit := _unit(column):
                yield Fact(subject_of(column), "unit", unit, "catalog", 0.85)
        if label := _label(table, noun, names, roles):
            yield Fact(about, "label", list(label), "catalog", 0.8)
        for key in table.foreign_keys:
            yield Fact(subject_of(key), "key_role", key_role(key, catalog), "catalog", 0.75)
            if verbs := _verbs(key, catalog):
                yield Fact(subject_of(key), "verbs", list(verbs), "catalog", 0.6)


# ---- tables


def table_noun(table: Table, catalog: Catalog) -> str:
    """What a row of a table is called."""
    words = phrase(table.name).split()[_shared([phrase(other.name) for other in catalog.tables]) :]
    kept = [word for word in words if word.lower() not in _STORAGE] or words
    if len(kept) == 1:
        kept = _segmented(kept[0], catalog)
    said = singular_phrase(" ".join(kept))
    return "sale" if said == "sales" else said  # of which a column has much, and a table many


def _shared(names: Sequence[str]) -> int:
    """How many first words all names share, such as a prefix of the project's; each keeps one word at least."""
    split = [name.lower().split() for name in names]
    most = min(map(len, split)) - 1 if len(split) > 2 else 0
    return next((place for place in range(most) if len({words[place] for words in split}) > 1), most)


def _segmented(word: str, catalog: Catalog) -> list[str]:
    """Split ``countrylanguage`` where the database itself knows both parts."""
    if not word.isalpha() or word.isupper():
        return [word]
    names = [table.name for table in catalog.tables]
    names += [column.name for table in catalog.tables for column in table.columns]
    known = {singular(piece.lower()) for name in names for piece in phrase(name).split()} - {singular(word.lower())}
    for cut in range(4, len(word) - 3):
        if singular(word[:cut].lower()) in known and singular(word[cut:].lower()) in known:
            return [word[:cut], word[cut:]]
    return [word]


def is_persons(table: Table, noun: str) -> bool:
    """Whether a table's rows are people: by its name, or by what it knows of them."""
    names = {phrase(column.name).lower() for column in table.columns}
    return noun.split(" ")[-1].lower() in _PERSONS or len(names & _PERSONAL) > 1


def _label(table: Table, noun: str, names: Mapping[str, str], roles: RoleOf) -> tuple[str, ...]:
    """The columns that people name a row by: a name, or first and last name."""
    called = {
        names[column.name]: column.name
        for column in table.columns
        if roles[table.name, column.name] == "name"
        or (names[column.name] in ("name", "title") and roles[table.name, column.name] in ("text", "category"))
    }
    if "first name" in called and "last name" in called:
        return (called["first name"], called["last name"])
    for wanted in ("name", "full name", "title"):
        if wanted in called:
            return (called[wanted],)
    # A payment's "vendor name" names no payment.
    of_noun = [column for said, column in called.items() if noun.endswith(said.rsplit(" ", 1)[0].lower())]
    return tuple(of_noun[:1])


# ---- columns


def column_names(table: Table, noun: str, catalog: Catalog, roles: RoleOf) -> dict[str, str]:
    """What each column is called by someone who speaks of the table already; singular."""
    keys = {name: key for key in table.foreign_keys for name in key.columns}
    full = {column.name: _full_name(column, table, catalog) for column in table.columns}
    ids = sum(said.endswith("ID") for name, said in full.items() if name not in keys)
    short: dict[str, str] = {}
    for column in table.columns:
        said, role = full[column.name], roles[table.name, column.name]
        if (key := keys.get(column.name)) is not None and len(key.columns) == 1:
            rest = key_role(key, catalog)
            last = phrase(column.name).split()[-1].lower()
            rest = f"{rest} {last if last in ('code', 'number', 'name') else 'ID'}"
        else:
            rest = _without_owner(said, noun, names_it=len(table.columns) > 1 and role in ("name", "text", "category"))
            rest = said if rest == "ID" and ids > 1 else rest
        if role == "code" and _stands_for_another(column, catalog):
            rest = f"{rest} ID"  # 3069 is no capital
        short[column.name] = _rounded_off(rest, column, role)
    counts = [said.lower() for said in short.values()]
    return {name: said if counts.count(said.lower()) == 1 else full[name] for name, said in short.items()}


def _full_name(column: Column, table: Table, catalog: Catalog) -> str:
    """Say a column's own name, without its unit, a last preposition and a prefix that its table's columns share."""
    words = phrase(column.name).split()[_shared([phrase(other.name) for other in table.columns]) :]
    words = [_spelled_out(word, catalog) for word in words]
    if len(words) > 1 and _unit(column) and words[-1].lower() in UNITS:
        words.pop()
        words = words[:-1] if words[-1].lower() == "in" and len(words) > 1 else words
    if len(words) > 1 and (last := words[-1].lower()) in _PREPOSITIONS:
        siblings = {phrase(other.name).lower() for other in table.columns}
        base = " ".join(words[:-1])
        ends = {"from": ("start", "to"), "to": ("end", "from")}
        if last in ends and f"{base} {ends[last][1]}".lower() in siblings:
            return f"{base} {ends[last][0]}"  # date from, date to
        if last == "by" and len(words) == 2 and (agent := agent_of(words[0])):
            return agent
        if last == "at" and is_verb(words[-2]):
            return f"time {base}"  # created at
        if last not in ("in", "on"):
            words.pop()
    return " ".join(words)


def _spelled_out(word: str, catalog: Catalog) -> str:
    """An abbreviation of what a table is about: ``diag`` where there are diagnoses."""
    if len(word) < 3 or is_noun(word) or is_verb(word) or not word.islower():
        return word
    nouns = [singular(phrase(table.name).split()[-1].lower()) for table in catalog.tables]
    return next((noun for noun in nouns if noun.startswith(word) and is_noun(noun)), word)


def agent_of(participle: str) -> str | None:
    """Who does it: the director of what is directed, the writer of what is written."""
    stem = is_verb(participle)
    if stem is None:
        return None
    shapes = [f"{stem}er", f"{stem}or", f"{stem[:-1]}er", f"{stem[:-1]}or", f"{stem}{stem[-1]}er"]
    return next((shape for shape in shapes if is_noun(shape)), None)


def _without_owner(said: str, noun: str, *, names_it: bool) -> str:
    """Leave out the table's own noun: a singer's "singer name" is their name.

    ``names_it``: The column can hold a row's name, as a number cannot: then the noun alone is that name.
    """
    low = said.lower()
    owners = {noun.lower(), plural_phrase(noun).lower(), noun.split(" ")[-1].lower(), noun.split(" ")[0].lower()}
    owners.add(plural_phrase(noun.split(" ")[-1]).lower())
    if low in owners:
        return "name" if names_it and low in (noun.lower(), plural_phrase(noun).lower()) else said
    for owner in sorted(owners, key=len, reverse=True):
        rest = said[len(owner) + 1 :]
        if low.startswith(f"{owner} ") and not re.match(r"(?:of|in|from|to|by|made|number|\d)\b", rest):
            return rest
    return said.removesuffix(f" of {noun}")


def _stands_for_another(column: Column, catalog: Catalog) -> bool:
    """Whether numbers stand for what has a name elsewhere."""
    words = [singular(word.lower()) for word in phrase(column.name).split()]
    things = {table_noun(table, catalog).lower() for table in catalog.tables}
    return not isinstance(column.maximum, str) and (words[-1] in STANDS_FOR or " ".join(words) in things)


def _rounded_off(said: str, column: Column, role: str) -> str:
    """Say what a lone participle, adjective or plural leaves open: "killed" is how many were."""
    if said.lower() in STATISTIC - {"total"}:
        return f"{said} value"
    if role == "year" and "year" not in said.lower():
        return f"{said} year"
    if " " not in said and role == "measure":
        if said.endswith("ed") and is_verb(said) not in (None, said.lower()):
            return f"number {said}"
        whole = isinstance(column.maximum, int)
        if whole and is_plural(said) and said.lower() not in UNCOUNTABLE:
            return f"number of {said}"
    return said


def _unit(column: Column) -> str | None:
    """The unit that ends a name (height_cm), or stands in the database's own comment."""
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", column.name) if word]
    is_number = isinstance(column.maximum, int | float)
    if len(words) > 1 and is_number and words[-1].lower() not in ("m", "day", "week", "month", "hour", "minute"):
        before = words[-2].lower()
        # "Number of days" is a number, and "release month" is no duration.
        if (unit := UNITS.get(words[-1].lower())) and before not in ("of", "per", "num", "number", "total"):
            return unit
    if len(words) == 1 and is_number and words[0].lower() in ("milliseconds", "seconds", "minutes", "hours", "bytes"):
        return words[0].lower()
    return unit_in(column.comment)


# ---- keys


def key_role(key: ForeignKey, catalog: Catalog) -> str:
    """What the row that a key leads to is to the row that it leads from: ``winning aircraft``, ``eye colour``."""
    noun = table_noun(catalog.table(key.referred_table), catalog)
    words = phrase(key.columns[0]).split() if len(key.columns) == 1 else []
    while words and words[-1].lower() in _KEY_WORDS:
        words.pop()
    if words and len(words) > 1 and words[-1].lower() in ("name", "title"):
        words.pop()
    own = table_noun(catalog.table(key.table), catalog).lower()
    said = singular_phrase(" ".join(words))
    heads = noun.lower().split(" ")
    low = said.lower()
    if not said or low in (noun.lower(), own) or low in heads or heads[-1].endswith(low) or noun.lower().endswith(low):
        return noun
    if " " not in low and len(low) <= 3:
        return noun  # an abbreviation of the table's name
    if words[-1].lower() in _PREPOSITIONS:
        if words[-1].lower() == "by" and len(words) == 2 and (agent := agent_of(words[0])):
            return agent
        return noun
    if re.search(rf"\b(?:{'|'.join(_PREPOSITIONS)}) ", low):
        return noun if is_verb(words[0]) else said  # lost_in_battle
    if low.startswith(f"{own} ") and low.removeprefix(f"{own} ") in heads:
        return noun
    if len(words) == 1 and (words[0].endswith(("ed", "ing", "ive", "al", "ary")) and low not in ("rental", "capital")):
        return f"{said} {noun}"  # affirmative, preferred
    return said


def _verbs(key: ForeignKey, catalog: Catalog) -> tuple[str, ...]:
    """A verb in a key's name (``reports_to``, ``lost_in_battle``) or in its table's (``has_pet``, ``teaches``)."""
    words = [word.lower() for word in phrase(key.columns[0]).split()] if len(key.columns) == 1 else []
    while words and words[-1] in _KEY_WORDS:
        words.pop()
    for place, word in enumerate(words[1:], start=1):
        if word in _PREPOSITIONS and (verb := is_verb(words[place - 1])) and verb != words[place - 1]:
            is_done = words[place - 1].endswith(("ed", "n", "t"))
            return (f"{'is ' if is_done else ''}{words[place - 1]} {word}",)
    table = catalog.table(key.table)
    name = [word.lower() for word in phrase(table.name).split()]
    if len(table.foreign_keys) == 2 and key == _object_of(table, catalog) and is_verb(name[0]) not in (None, name[0]):
        preposition = f" {name[1]}" if len(name) > 1 and name[1] in _PREPOSITIONS else ""
        return (f"{'is ' if name[0].endswith('ed') else ''}{name[0]}{preposition}",)
    return ()


def _object_of(table: Table, catalog: Catalog) -> ForeignKey:
    """Which of a table's two keys leads to what something is done with: people do it, or what the first key names."""
    first, second = table.foreign_keys
    of_first, of_second = catalog.table(first.referred_table), catalog.table(second.referred_table)
    people = [is_persons(of, table_noun(of, catalog)) for of in (of_first, of_second)]
    return first if people == [False, True] else second

"""What people call a table, a column, and what a key leads to."""

import re
from dataclasses import dataclass, replace
from functools import cached_property

from tutelage.text2sql.database.catalog import Catalog, Table
from tutelage.text2sql.database.nouns import UNCOUNTABLE, is_plural, singular
from tutelage.text2sql.explore.synthesizers.roles import STANDS_FOR, STATISTIC, Roles, SoundKey
from tutelage.text2sql.explore.words import phrase, plural_phrase, singular_phrase

# Parts of table names that say how it is stored, not what it is.
_STORAGE = {
    "other", "ref", "tbl", "table", "data", "list", "info", "information", "dim", "fact", "lookup",
    "record", "records",
}  # fmt: skip
_PERSONS = {
    "actor", "author", "candidate", "captain", "child", "client", "coach", "conductor", "contestant", "customer",
    "director", "doctor", "driver", "editor", "employee", "engineer", "friend", "guest", "highschooler", "hero", "host",
    "instructor", "journalist", "judge", "lawyer", "lecturer", "loser", "manager", "member", "musician", "nurse",
    "officer", "owner", "passenger", "patient", "person", "physician", "pilot", "player", "poet", "president",
    "professional", "professor", "resident", "reviewer", "rider", "scientist", "singer", "student", "superhero",
    "swimmer", "teacher", "user", "visitor", "voter", "winner", "worker", "writer", "artist", "athlete", "staff",
}  # fmt: skip
_NOUN_OF_VERB = {
    "arrange": "arrangement",
    "has": "",
    "hire": "hiring",
    "assign": "assignment",
    "appoint": "appointment",
}
# A column called this says little without the noun it belongs to.
VAGUE = {"name", "type", "code", "description", "status", "level", "title", "date", "number", "id", "details", "kind"}


@dataclass(frozen=True, slots=True)
class Noun:
    """How one and many rows are called."""

    one: str
    many: str
    person: bool = False

    @property
    def its(self) -> str:
        """The possessive for one."""
        return "their" if self.person else "its"


def _noun(said: str) -> Noun:
    one = singular_phrase(said)
    return Noun(one, plural_phrase(one), one.split(" ")[-1].lower() in _PERSONS)


@dataclass(frozen=True, slots=True)
class Link:
    """A key from ``table``'s ``columns`` to exactly one row of ``referred``; ``noun`` is what that row is to it."""

    table: str
    columns: tuple[str, ...]
    referred: str
    referred_columns: tuple[str, ...]
    noun: Noun


class Naming:
    """Names for one database's tables, columns and keys."""

    def __init__(self, catalog: Catalog, roles: Roles) -> None:
        self._catalog, self._roles = catalog, roles
        self._nouns: dict[str, Noun] = {}
        self._columns: dict[str, dict[str, str]] = {}

    def noun(self, table: str) -> Noun:
        """What a row of the table is called."""
        if table not in self._nouns:
            noun = self._table_noun(self._catalog.table(table))
            if self.is_bridge(table):
                # Its own name ("has pet") is for the two sides; its rows are pairs of them.
                ends = "-".join(self._key_noun(key).one for key in self._roles.sound_keys if key[0] == table)
                noun = Noun(f"{ends} pair", f"{ends} pairs")
            self._nouns[table] = noun
        return self._nouns[table]

    def _table_noun(self, table: Table) -> Noun:
        words = phrase(table.name).split()
        words = [_NOUN_OF_VERB.get(word, word) for word in words]
        kept = [word for word in words if word and word.lower() not in _STORAGE] or words
        if len(kept) == 1:
            kept = self._segmented(kept[0])
        noun = _noun(" ".join(kept))
        if noun.one.split(" ")[-1].lower() in UNCOUNTABLE:
            # "At least one weather"
            noun = _noun(f"{noun.one} {'member' if noun.person else 'record'}")
        columns = {phrase(column.name) for column in table.columns}
        if {"first name", "last name"} & columns and not noun.person:
            noun = replace(noun, person=True)
        return noun

    def _segmented(self, word: str) -> list[str]:
        """Split ``countrylanguage`` where the database itself knows both parts."""
        known = {piece.lower() for table in self._catalog.tables for piece in phrase(table.name).split()}
        known |= {singular(piece.lower()) for table in self._catalog.tables for column in table.columns
                  for piece in phrase(column.name).split()}  # fmt: skip
        for cut in range(4, len(word) - 3):
            if word[:cut].lower() in known and singular(word[cut:].lower()) in known:
                return [word[:cut], word[cut:]]
        return [word]

    def column(self, table: str, column: str) -> str:
        """What a column is called by someone who speaks of the table already; singular."""
        if table not in self._columns:
            self._columns[table] = self._table_columns(self._catalog.table(table))
        return self._columns[table][column]

    def _table_columns(self, table: Table) -> dict[str, str]:
        noun = self.noun(table.name)
        full: dict[str, str] = {}
        for column in table.columns:
            said = next(
                (
                    text
                    for text in (column.spoken_name, column.comment)
                    if text and len(text.split()) <= 4 and text.isascii()
                ),
                "",
            )
            # A description may write the identifier again.
            full[column.name] = phrase(said) if said and "_" in said else said.strip() or phrase(column.name)
        short: dict[str, str] = {}
        keys = {column for key in table.foreign_keys for column in key.columns}
        ids = sum(said.endswith("ID") for said in full.values())
        owners = [
            noun.one.lower(),
            noun.many.lower(),
            noun.one.split(" ")[-1].lower(),
            noun.many.split(" ")[-1].lower(),
            re.sub(r" (?:record|member)$", "", noun.one.lower()),
        ]
        for name, said in full.items():
            rest = said
            low = said.lower()
            own = [] if name in keys else owners
            if low in (noun.one.lower(), noun.many.lower()) and len(table.columns) > 1:
                rest = "name"
            else:
                for owner in sorted(own, key=len, reverse=True):
                    if low.startswith(owner + " "):
                        rest = said[len(owner) + 1 :]
                        break
            if re.match(r"(?:of|in|from|to|by|made|number|\d)\b", rest) or (rest == "ID" and ids > 1):
                rest = said
            # "Highest" names no thing.
            rest = f"{rest} value" if rest.lower() in STATISTIC else rest
            # "killed" is how many were.
            if " " not in rest and rest.endswith("ed") and self._roles.of(table.name, name).role == "measure":
                rest = f"number {rest}"
            role = self._roles.of(table.name, name).role
            if role == "year" and "year" not in rest:
                rest = f"{rest} year"
            if role == "code" and self._stands_for_another(table.name, name):
                rest = f"{rest} ID"
            if name in keys and role == "key":
                # "lost in battle" holds the battle's ID.
                rest = re.sub(r"^\w+(?:ed|t) (?:by|in|at|from|to) ", "", rest)
                rest = rest if rest.endswith(("ID", "code", "number")) else f"{rest} ID"
            if " " not in rest and is_plural(rest) and rest.lower() not in UNCOUNTABLE:
                profile = self._roles.of(table.name, name)
                rest = f"number of {rest}" if profile.role == "measure" and profile.whole else rest
            short[name] = rest.removesuffix(f" of {noun.one}")
        counts = [text.lower() for text in short.values()]
        return {name: text if counts.count(text.lower()) == 1 else full[name] for name, text in short.items()}

    def _stands_for_another(self, table: str, column: str) -> bool:
        """Whether numbers stand for what has a name elsewhere: 3069 is no capital."""
        numbers = all(not isinstance(value, str) for value in self._roles.of(table, column).values)
        words = [singular(word.lower()) for word in phrase(column).split()]
        return numbers and (words[-1] in STANDS_FOR or " ".join(words) in self._roles.things)

    def label(self, table: str) -> tuple[str, ...]:
        """The columns that people name a row by: a name, first and last name, or nothing."""
        names = [column.name for column in self._catalog.table(table).columns
                 if self._roles.of(table, column.name).role == "name"]  # fmt: skip
        said = {self.column(table, name): name for name in names}
        if "first name" in said and "last name" in said:
            return (said["first name"], said["last name"])
        for wanted in ("name", "full name", "title"):
            if wanted in said:
                return (said[wanted],)
        return tuple(names[:1])

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """The keys to follow from a row to exactly one other."""
        return tuple(Link(*key, self._key_noun(key)) for key in self._roles.sound_keys)

    def _key_noun(self, key: SoundKey) -> Noun:
        """What a key leads to: the table's noun, or the role that the key's own name gives it."""
        table, columns, referred, _ = key
        noun = self._table_noun(self._catalog.table(referred))
        siblings = [other for other in self._roles.sound_keys if other[0] == table and other[2] == referred]
        if len(siblings) < 2 and table != referred:
            return noun
        words = [word for word in phrase(columns[0]).split() if word.lower() not in ("id", "code", "key", "number")]
        said = " ".join(words).lower()
        if not said or said in (noun.one.lower(), noun.many.lower()):
            return noun
        role = _noun(f"{said} {noun.one}" if words[-1].endswith("ed") else said)
        return replace(role, person=role.person or noun.person)

    def links_from(self, table: str) -> list[Link]:
        """The keys of a table."""
        return [link for link in self.links if link.table == table]

    def links_to(self, table: str) -> list[Link]:
        """The keys that lead to a table; of a bridge from a table to itself, the first: whose friends, not of whom."""
        found = [link for link in self.links if link.referred == table]
        return [link for link in found if not (self._ties_itself(link.table) and link != self._first_link(link.table))]

    def _first_link(self, table: str) -> Link:
        order = [column.name for column in self._catalog.table(table).columns]
        return min(self.links_from(table), key=lambda link: order.index(link.columns[0]))

    def _ties_itself(self, table: str) -> bool:
        links = self.links_from(table)
        return self.is_bridge(table) and links[0].referred == links[1].referred

    def among_siblings(self, table: str, columns: tuple[str, ...]) -> Noun | None:
        """What a key's referred row is to the table, where another key leads to the same table; None elsewhere."""
        mine = [link for link in self.links_from(table) if link.columns == columns]
        if not mine or self.is_bridge(table):
            return None
        alike = [link for link in self.links_from(table) if link.referred == mine[0].referred]
        return mine[0].noun if len(alike) > 1 else None

    def belongs(self, table: str, columns: tuple[str, ...]) -> bool:
        """Whether a bridge says that what this key leads to is had: ``has_pet``: pets belong to students."""
        words = phrase(table).split()
        if words[0] not in ("has", "have", "owns") or not self.is_bridge(table):
            return False
        return any(link.columns == columns and self.noun(link.referred).one.endswith(singular(words[-1]))
                   for link in self.links_from(table))  # fmt: skip

    def is_bridge(self, table: str) -> bool:
        """Whether a table only ties two others together: two keys, and nothing else that could be asked for."""
        # Not from links: these carry nouns, and a bridge's noun asks whether it is one.
        keys = [key for key in self._roles.sound_keys if key[0] == table]
        if len(keys) != 2:
            return False
        tied = {column for key in keys for column in key[1]}
        return all(
            column.name in tied or self._roles.of(table, column.name).role in ("key", "empty")
            for column in self._catalog.table(table).columns
        )

    def same_thing(self, table: str, columns: tuple[str, ...]) -> bool:
        """Whether a key leads to more about the same thing: a poker player *is* a person, and does not have one."""
        link = next((link for link in self.links_from(table) if link.columns == columns), None)
        if link is None or len(columns) != 1 or not self._roles.of(table, columns[0]).unique:
            return False
        ours, theirs = self.noun(table), self.noun(link.referred)
        if ours.person and theirs.one == "person":
            return True
        shares_key = self._catalog.table(table).primary_key == columns
        return shares_key and ours.one.split(" ")[0] == theirs.one.split(" ")[0]

"""What people call a table, a column, and what a key leads to."""

from dataclasses import dataclass
from functools import cached_property

from tutelage.text2sql.database.catalog import Catalog, Table
from tutelage.text2sql.database.nouns import UNCOUNTABLE, singular
from tutelage.text2sql.explore.facts.roles import Roles, SoundKey
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.words import phrase, plural_phrase

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

    def __init__(self, catalog: Catalog, roles: Roles, facts: Facts) -> None:
        self._catalog, self._roles, self._facts = catalog, roles, facts
        self._nouns: dict[str, Noun] = {}

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
        said, persons = self._facts.spoken(table), self._facts.persons(table)
        if said.split(" ")[-1].lower() in UNCOUNTABLE:
            said = f"{said} {'member' if persons else 'record'}"  # "at least one weather"
        return Noun(said, plural_phrase(said), persons)

    def column(self, table: str, column: str) -> str:
        """What a column is called by someone who speaks of the table already; singular."""
        return self._facts.spoken(self._catalog.column(table, column))

    def label(self, table: str) -> tuple[str, ...]:
        """The columns that people name a row by: a name, first and last name, or nothing."""
        return self._facts.label(self._catalog.table(table))

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """The keys to follow from a row to exactly one other."""
        return tuple(Link(*key, self._key_noun(key)) for key in self._roles.sound_keys)

    def _key_noun(self, key: SoundKey) -> Noun:
        """What a key leads to: the role that its row has there, or the table's noun."""
        table, columns, referred, _ = key
        noun = self._table_noun(self._catalog.table(referred))
        keys = self._catalog.table(table).foreign_keys
        same = next((known for known in keys if known.columns == columns and known.referred_table == referred), None)
        role = self._facts.key_role(same) if same is not None else ""
        if not role or role == self._facts.spoken(self._catalog.table(referred)):
            return noun
        return Noun(role, plural_phrase(role), noun.person)

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

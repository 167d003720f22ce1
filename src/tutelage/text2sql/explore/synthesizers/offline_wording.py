"""How the things of a question are called, and which of several wordings is taken."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tutelage.text2sql.database.catalog import Value
from tutelage.text2sql.database.nouns import UNCOUNTABLE, is_plural
from tutelage.text2sql.explore.facts.roles import Profile, Roles
from tutelage.text2sql.explore.synthesizers.naming import Naming, Noun
from tutelage.text2sql.explore.synthesizers.offline_tree import Aggregate, Node, Ref
from tutelage.text2sql.explore.words import article

# How a modifier attaches to its noun, in the order in which several follow it.
Attachment = Literal["plain", "with", "whose", "that"]
Modifier = tuple[Attachment, str]

# more, less, most, least; for columns called exactly so.
ADJECTIVES = {
    "age": ("older", "younger", "oldest", "youngest"),
    "height": ("taller", "shorter", "tallest", "shortest"),
    "weight": ("heavier", "lighter", "heaviest", "lightest"),
    "length": ("longer", "shorter", "longest", "shortest"),
    "price": ("more expensive", "cheaper", "most expensive", "cheapest"),
}
_LARGE = {"population", "area", "size", "capacity", "amount", "share", "surface area"}
_LONG = {"duration", "length", "distance", "runtime", "minutes"}


def plural_verb(said: str) -> bool:
    """Whether a column's phrase takes ``are``: sales, earnings."""
    head = re.split(r" (?:of|in|from) ", said)[0].split(" ")[-1].lower()
    return head in ("sales", "earnings", "details", "savings", "goods") or (is_plural(head) and head not in UNCOUNTABLE)


def with_article(said: str) -> str:
    """Put ``a`` or ``an`` before a phrase that takes one."""
    head = re.split(r" (?:of|in|from) ", said)[0].split(" ")[-1].lower()
    acronym = said.split(" ")[-1].isupper()
    if not acronym and not said.startswith("number ") and (head in UNCOUNTABLE or is_plural(head)):
        return said
    return f"{article(said)} {said}"


def singular_verbs(text: str) -> str:
    """Make the verbs of ``that``-clauses agree with one: the first of a clause and those joined to it."""
    text = re.sub(r"\b(that|and) belong to\b", r"\1 belongs to", text)
    text = re.sub(r"\bthat do not belong\b", "that does not belong", text)
    text = re.sub(r"\bthat have\b", "that has", text)
    text = re.sub(r"\bthat do not have\b", "that does not have", text)
    text = re.sub(r"\bthat are\b", "that is", text)
    text = re.sub(r"\band have\b", "and has", text)
    text = re.sub(r"\band do not have\b", "and does not have", text)
    return re.sub(r"\band are\b", "and is", text)


@dataclass(frozen=True, slots=True)
class Wording:
    """Names and values of one question; ``rng`` chooses among the ways to say them."""

    naming: Naming
    roles: Roles
    rng: np.random.Generator
    quote: str
    said: dict[Aggregate, str] = field(default_factory=dict)  # a question says "mean" or "average", and not both

    def pick(self, options: Sequence[str]) -> str:
        """Choose one wording."""
        return options[int(self.rng.integers(len(options)))]

    def noun(self, nodes: tuple[Node, ...], index: int) -> Noun:
        """What the rows of a node are to the node they hang from."""
        node = nodes[index]
        if node.parent >= 0:
            for link in self.naming.links_from(nodes[node.parent].table):
                if link.columns == node.columns and link.referred == node.table:
                    return link.noun
        return self.naming.noun(node.table)

    def column(self, nodes: tuple[Node, ...], ref: Ref) -> str:
        """What a column is called beside its noun."""
        return self.naming.column(nodes[ref.node].table, ref.column)

    def profile(self, nodes: tuple[Node, ...], ref: Ref) -> Profile:
        """What is known of a column."""
        return self.roles.of(nodes[ref.node].table, ref.column)

    def path(self, nodes: tuple[Node, ...], view: int, node: int) -> list[Noun] | None:
        """The nouns to pass from ``view`` to a node it leads to; None where it does not lead there."""
        nouns: list[Noun] = []
        while node != view:
            if node <= 0:
                return None
            if not self.naming.same_thing(nodes[nodes[node].parent].table, nodes[node].columns):
                nouns.insert(0, self.noun(nodes, node))
            node = nodes[node].parent
        return nouns

    def value(self, value: Value) -> str:
        """Write a value as it stands in a question."""
        if isinstance(value, str):
            text = value.strip()
            return f'"{text}"' if "'" in text or self.quote == '"' else f"'{text}'"
        return str(int(value)) if float(value) == int(value) else repr(value)

    def day(self, value: Value, profile: Profile) -> str:
        """Write a date."""
        text = str(value).strip()
        if profile.dated == "compact":
            text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
        return text[:10]

    def extreme(self, said: str, profile: Profile, *, highest: bool) -> str:
        """Say a column's highest or lowest value: the earliest date, the largest population."""
        if profile.ranks and not highest:
            return said if said.startswith("best ") else f"best {said}"
        if said.startswith("number of "):
            return f"{'highest' if highest else 'lowest'} {said}"
        if profile.role in ("date", "year"):
            return f"{self.pick(('latest', 'most recent') if highest else ('earliest',))} {said}"
        if said.split(" ")[-1].lower() in _LARGE:
            return f"{self.pick(('largest', 'highest') if highest else ('smallest', 'lowest'))} {said}"
        if said.split(" ")[-1].lower() in _LONG:
            return f"{'longest' if highest else 'shortest'} {said}"
        return f"{'highest' if highest else 'lowest'} {said}"

"""The parts of an offline question: what is said of a column, a condition, an order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tutelage.text2sql.database.catalog import Value
from tutelage.text2sql.explore.synthesizers.naming import VAGUE, Naming, Noun
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    AgainstAverage,
    Aggregate,
    AtExtreme,
    Between,
    Compare,
    Condition,
    InYear,
    Like,
    Linked,
    Missing,
    Node,
    OneOf,
    Ref,
    SameAs,
)
from tutelage.text2sql.explore.synthesizers.roles import Profile, Roles
from tutelage.text2sql.explore.words import UNCOUNTABLE, article, is_plural, listed, plural_phrase

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
_PLACES = {"country", "city", "hometown", "state", "region", "continent", "district", "county", "province"}
_COUNTED = "number of "


def plural_verb(said: str) -> bool:
    """Whether a column's phrase takes ``are``: sales, earnings."""
    head = re.split(r" (?:of|in|from) ", said)[0].split(" ")[-1].lower()
    return head in ("sales", "earnings", "details", "savings", "goods") or (is_plural(head) and head not in UNCOUNTABLE)


def with_article(said: str) -> str:
    """Put ``a`` or ``an`` before a phrase that takes one."""
    head = re.split(r" (?:of|in|from) ", said)[0].split(" ")[-1].lower()
    acronym = said.split(" ")[-1].isupper()
    if not acronym and (head in UNCOUNTABLE or is_plural(head)):
        return said
    return f"{article(said)} {said}"


@dataclass(frozen=True, slots=True)
class Clauses:
    """Says the parts of one question; ``rng`` chooses among the ways to say them."""

    naming: Naming
    roles: Roles
    rng: np.random.Generator
    quote: str

    def pick(self, options: Sequence[str]) -> str:
        """Choose one wording."""
        return options[int(self.rng.integers(len(options)))]

    # ---- names

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

    # ---- conditions

    def modifiers(self, nodes: tuple[Node, ...], conditions: Sequence[Condition], view: int) -> list[Modifier]:
        """Say conditions as modifiers of the rows of ``view``; those it does not lead to make one clause together."""
        said: list[Modifier] = []
        beyond: list[Condition] = []
        reached: list[tuple[Condition, list[Noun]]] = []
        for condition in conditions:
            node = condition.node if isinstance(condition, Linked) else condition.ref.node
            path = self.path(nodes, view, node)
            if path is None:
                beyond.append(condition)
            else:
                reached.append((condition, path))
        # The rows' own first: after "whose owner's city is …" all that follows would be the owner's.
        for condition, path in sorted(reached, key=lambda pair: len(pair[1])):
            # Two "with" in a row are hard to read.
            plainly = any(kind == "with" for kind, _ in said)
            said.append(self._modifier(nodes, condition, path, plainly=plainly))
        if beyond:
            said.append(self._beyond(nodes, beyond, view))
        return said

    def across(self, nodes: tuple[Node, ...], view: int) -> tuple[Noun, int]:
        """What the rows of ``view`` have on the anchor's side: the anchor's rows, or what a mere bridge leads to."""
        if self.naming.is_bridge(nodes[0].table):
            for index, node in enumerate(nodes):
                if node.parent == 0 and index != view:
                    return self.noun(nodes, index), index
            for link in self.naming.links_from(nodes[0].table):
                if link.columns != nodes[view].columns:
                    return link.noun, 0
        return self.naming.noun(nodes[0].table), 0

    def _beyond(self, nodes: tuple[Node, ...], conditions: list[Condition], view: int) -> Modifier:
        noun, inner = self.across(nodes, view)
        inside = self._as_role(nodes[0].table, nodes[view].columns)
        inside += self.attach("", self.modifiers(nodes, conditions, inner))
        have = self.have(nodes[0].table, nodes[view].columns)
        if self.rng.random() < 0.6:
            return "that", f"{have} {article(noun.one)} {noun.one}{inside}"
        return "that", f"{have} at least one {noun.one}{inside}"

    def have(self, table: str, columns: tuple[str, ...]) -> str:
        """The verb from what a key of ``table`` leads to, to that table's rows or what they tie it to."""
        return "belong to" if self.naming.belongs(table, columns) else "have"

    def _as_role(self, table: str, columns: tuple[str, ...]) -> str:
        """In what role, where a table leads to another in several: ``matches as the winner``."""
        role = self.naming.among_siblings(table, columns)
        return f" as the {role.one}" if role else ""

    def attach(self, head: str, modifiers: list[Modifier]) -> str:
        """Attach modifiers to a noun phrase, in an order that reads well."""
        text = head
        seen = 0
        for kind in ("plain", "with", "whose", "that"):
            parts = [part for attachment, part in modifiers if attachment == kind]
            if not parts:
                continue
            lead = "" if kind == "plain" else kind + " "
            joint = " and " if seen and (kind == "that" or (kind == "whose" and seen > 1)) else " "
            text += f"{joint}{lead}{' and '.join(parts)}"
            seen += len(parts)
        return text

    def _modifier(self, nodes: tuple[Node, ...], condition: Condition, path: list[Noun], *, plainly: bool) -> Modifier:
        if isinstance(condition, Linked):
            return self._linked(condition, path)
        owner = "".join(f"{noun.one}'s " for noun in path)
        said, profile = self.column(nodes, condition.ref), self.profile(nodes, condition.ref)
        entity = self.noun(nodes, condition.ref.node) if path else self.naming.noun(nodes[condition.ref.node].table)
        labels = self.naming.label(nodes[condition.ref.node].table)
        by_name = labels == (condition.ref.column,)
        verb = "are" if plural_verb(said) else "is"
        one = f"{owner}{said}"
        who = owner[: -len("'s ")]  # the noun that the path ends in
        adjective = ADJECTIVES.get(said.lower())
        options: list[Modifier] = []

        if isinstance(condition, Compare):
            value = self.value(condition.value)
            if profile.role == "date":
                value = self.day(condition.value, profile)
                how = {">=": "on or after", "<": "before", ">": "after", "<=": "on or before", "=": "", "!=": "not"}
                options = [("whose", f"{one} is {how[condition.op]} {value}")]
                if not path:
                    options.append(("with", f"{with_article(said)} {how[condition.op]} {value}"))
            elif profile.role == "flag":
                options = [self._flag(nodes, condition, owner, who)]
            elif profile.role == "year":
                how = {">": "after", "<": "before", "=": "", "!=": "not", ">=": "", "<=": ""}
                after = {">=": " or later", "<=": " or earlier"}.get(condition.op, "")
                options = [("whose", f"{one} is {how[condition.op]} {value}{after}".replace("  ", " "))]
                if not path and condition.op in (">", "<"):
                    options.append(("with", f"{with_article(said)} {how[condition.op]} {value}"))
            elif profile.numeric:
                options = self._compared(condition, said, one, path, who, verb, value, entity)
            else:
                options = self._equal(condition.op, said, one, path, who, verb, value, by_name, entity)
        elif isinstance(condition, Between):
            low, high = (
                self.day(v, profile) if profile.role == "date" else self.value(v)
                for v in (condition.low, condition.high)
            )
            options = [("whose", f"{one} {verb} between {low} and {high}")]
            if not path and adjective and said == "age":
                options.append(("plain", f"aged between {low} and {high}"))
            elif not path:
                options.append(("with", f"{with_article(said)} between {low} and {high}"))
        elif isinstance(condition, OneOf):
            values = listed([self.value(value) for value in condition.values], "or")
            either = "either " if len(condition.values) == 2 and self.rng.random() < 0.4 else ""
            options = [("whose", f"{who if by_name and path else one} {verb} {either}{values}")]
        elif isinstance(condition, Like):
            begins = {
                "starts": ("starts with", "begins with"),
                "contains": ("contains", "includes"),
                "ends": ("ends with", "ends in"),
            }
            text = self.value(condition.text)
            options = [("whose", f"{one} {self.pick(begins[condition.where])} {text}")]
        elif isinstance(condition, InYear):
            options = [("whose", f"{one} is in {condition.year}"), ("whose", f"{one} falls in {condition.year}")]
        elif isinstance(condition, Missing):
            if condition.negated:
                options = [("whose", f"{one} {verb} known"), ("whose", f"{one} {verb} recorded")]
            else:
                options = [("whose", f"{one} {verb} missing"), ("whose", f"{one} {verb} not known")]
                if not path:
                    options.append(("with", f"no {said} recorded"))
        elif isinstance(condition, AgainstAverage):
            all_rows = f"of all {self.naming.noun(nodes[condition.ref.node].table).many}"
            side = self.pick(("above", "higher than", "greater than") if condition.above else ("below", "lower than"))
            options = [
                ("whose", f"{one} {verb} {side} the average {said} {all_rows}"),
                ("whose", f"{one} {verb} {side} the average {all_rows}"),
            ]
            if not path:
                options.append(("with", f"{with_article(said)} {side} the average {all_rows}"))
                if adjective:
                    than = adjective[0 if condition.above else 1]
                    options.append(("plain", f"{than} than the average {said} {all_rows}"))
        elif isinstance(condition, AtExtreme):
            all_rows = f"of all {self.naming.noun(nodes[condition.ref.node].table).many}"
            most = self.extreme(said, profile, highest=condition.highest)
            options = [
                ("whose", f"{one} equals the {most} {all_rows}"),
                ("whose", f"{one} {verb} the {most} {all_rows}"),
            ]
            if not path:
                options.append(("with", f"the {most} {all_rows}"))
        else:
            assert isinstance(condition, SameAs)
            named = self.value(condition.value)
            other = f"{entity.one} {named}" if self.rng.random() < 0.5 else named
            options = [("with", f"the same {said} as {other}"), ("whose", f"{one} {verb} the same as that of {other}")]
            if path:
                options = options[1:]
            elif said in _PLACES:
                options.append(("plain", f"from the same {said} as {other}"))
        if plainly:
            options = [option for option in options if option[0] != "with"] or options
        return options[int(self.rng.integers(len(options)))]

    def _flag(self, nodes: tuple[Node, ...], condition: Compare, owner: str, who: str) -> Modifier:
        yes = str(condition.value).strip().lower() in ("t", "true", "yes", "y", "1", "1.0")
        said = self.column(nodes, condition.ref)
        words = said.split(" ")
        if words[0] in ("is", "was") or condition.ref.column.lower().endswith("_yn"):
            rest = " ".join(words[1:]) if words[0] in ("is", "was") else said
            text = f"{'are' if not who else 'is'} {'' if yes else 'not '}{rest}"
            return ("that", text) if not who else ("whose", f"{who} {text}")
        return "whose", f"{owner}{said} is {self.value(condition.value)}"

    def _compared(
        self,
        condition: Compare,
        said: str,
        one: str,
        path: list[Noun],
        who: str,
        verb: str,
        value: str,
        entity: Noun,
    ) -> list[Modifier]:
        """A number against another."""
        op = condition.op
        how = {
            ">": ("more than", "greater than", "above", "over"),
            "<": ("less than", "below", "under"),
            ">=": ("at least",),
            "<=": ("at most",),
            "=": ("",),
            "!=": ("not",),
        }[op]
        options: list[Modifier] = [("whose", f"{one} {verb} {self.pick(how)} {value}".replace("  ", " "))]
        if path:
            if said == "age" and op in (">", "<"):
                options.append(("whose", f"{who} is {'older' if op == '>' else 'younger'} than {value}"))
            return options
        counted = said[len(_COUNTED) :] if said.startswith(_COUNTED) else ""
        if counted:
            count = {">": "more than", "<": "fewer than", ">=": "at least", "<=": "at most", "=": "exactly"}
            if op in count:
                options.append(("with", f"{count[op]} {value} {counted}"))
            return options
        if op == "=":
            options.append(("with", f"{with_article(said)} of {value}"))
        elif op != "!=":
            side = self.pick(how)
            link = "of " if side in ("more than", "less than", "at least", "at most") else ""
            options.append(("with", f"{with_article(said)} {link}{side} {value}"))
        adjective = ADJECTIVES.get(said.lower())
        if adjective and op in (">", "<"):
            than: Modifier = ("plain", f"{adjective[0 if op == '>' else 1]} than {value}")
            options += [than, than]
        return options

    def _equal(
        self,
        op: str,
        said: str,
        one: str,
        path: list[Noun],
        who: str,
        verb: str,
        value: str,
        by_name: bool,
        entity: Noun,
    ) -> list[Modifier]:
        """A text that is, or is not, a column's value."""
        negation = "not " if op == "!=" else ""
        if path:
            if by_name:
                return [("whose", f"{who} is {negation}{value}")]
            return [("whose", f"{one} {verb} {negation}{value}")]
        options: list[Modifier] = [("whose", f"{one} {verb} {negation}{value}")]
        if negation:
            return options
        bare = value[1:-1]
        if by_name and said == "name":
            options.append(("plain", f"{self.pick(('named', 'called'))} {value}"))
        elif said in _PLACES and bare[:1].isupper() and re.fullmatch(r"[^\W\d_][\w .'-]{3,}", bare):
            place = "from" if entity.person else "in"
            options += [("plain", f"{place} {bare}")] * 2
        else:
            options.append(("with", f"the {said} {value}"))
            if not is_plural(said) and self.rng.random() < 0.5:
                options.append(("with", f"{said} {value}"))
        return options

    def _linked(self, condition: Linked, path: list[Noun]) -> Modifier:
        nodes = condition.nodes
        if self.naming.is_bridge(nodes[0].table):
            if len(nodes) > 1:
                noun, view = self.noun(nodes, 1), 1
            else:
                links = self.naming.links_from(nodes[0].table)
                noun, view = next(link.noun for link in links if link.columns != condition.referring), 0
        else:
            noun, view = self.naming.noun(nodes[0].table), 0
        inside = self._as_role(nodes[0].table, condition.referring)
        inside += self.attach("", self.modifiers(nodes, condition.where, view))
        have = self.have(nodes[0].table, condition.referring)
        plain_have = have
        if path:
            have = "has" if have == "have" else "belongs to"
        if condition.negated:
            none = [f"{have} no {noun.many}{inside}"]
            if not path:
                none += [
                    f"do not {plain_have} any {noun.many}{inside}",
                    f"have no {noun.one if inside else noun.many}{inside}",
                ]
            text = self.pick(none)
        else:
            text = self.pick(
                (f"{have} at least one {noun.one}{inside}", f"{have} {article(noun.one)} {noun.one}{inside}")
            )
            if not inside:
                text = self.pick((f"{have} {noun.many}", f"{have} at least one {noun.one}"))
        if path:
            return "whose", f"{self.naming_owner(path)} {text}"
        return "that", text

    @staticmethod
    def naming_owner(path: list[Noun]) -> str:
        """The noun at a path's end, with its owners."""
        return "'s ".join(noun.one for noun in path)

    # ---- aggregates and orders

    def extreme(self, said: str, profile: Profile, *, highest: bool) -> str:
        """Say a column's highest or lowest value: the earliest date, the largest population."""
        if profile.ranks and not highest:
            return said if said.startswith("best ") else f"best {said}"
        if profile.role in ("date", "year"):
            return f"{self.pick(('latest', 'most recent') if highest else ('earliest',))} {said}"
        if said.split(" ")[-1].lower() in _LARGE:
            return f"{self.pick(('largest', 'highest') if highest else ('smallest', 'lowest'))} {said}"
        if said.split(" ")[-1].lower() in _LONG:
            return f"{'longest' if highest else 'shortest'} {said}"
        return f"{'highest' if highest else 'lowest'} {said}"

    def aggregate(self, nodes: tuple[Node, ...], aggregate: Aggregate, rows: Noun) -> str:
        """Say an aggregate without its rows: ``average age``, ``number of singers``."""
        if aggregate.ref is None:
            return f"number of {rows.many}"
        said, profile = self.column(nodes, aggregate.ref), self.profile(nodes, aggregate.ref)
        if aggregate.function == "count":
            what = self.pick(("different", "distinct"))
            return f"number of {what} {plural_phrase(self.full(nodes, aggregate.ref))}"
        if aggregate.function in ("min", "max"):
            highest = aggregate.function == "max"
            if profile.role in ("date", "year"):
                return self.extreme(said, profile, highest=highest)
            plain = f"{self.pick(('maximum', 'highest') if highest else ('minimum', 'lowest'))} {said}"
            return self.pick((plain, self.extreme(said, profile, highest=highest)))
        return f"{ {'avg': self.pick(('average', 'average', 'mean')), 'sum': 'total'}[aggregate.function] } {said}"

    def full(self, nodes: tuple[Node, ...], ref: Ref) -> str:
        """A column's phrase that says its noun too where it would say too little alone: ``pet type``."""
        said = self.column(nodes, ref)
        noun = self.noun(nodes, ref.node).one
        return f"{noun} {said}" if said.lower() in VAGUE else said

    def order(self, nodes: tuple[Node, ...], ref: Ref, *, descending: bool, said: str) -> str:
        """Say how a list is sorted."""
        profile = self.profile(nodes, ref)
        if profile.role in ("date", "year"):
            if descending:
                return self.pick((f"sorted by {said} from latest to earliest", f"most recent {said} first",
                                  f"in descending order of {said}"))  # fmt: skip
            return self.pick((f"sorted by {said} from earliest to latest", f"earliest {said} first",
                              f"in ascending order of {said}"))  # fmt: skip
        if profile.numeric:
            adjective = ADJECTIVES.get(said.lower())
            options = [f"in {'descending' if descending else 'ascending'} order of {said}"]
            far, near = ("highest", "lowest") if descending else ("lowest", "highest")
            options += [f"sorted by {said} from {far} to {near}", f"ordered by {said}, {far} first"]
            if adjective:
                first, last = (adjective[2], adjective[3]) if descending else (adjective[3], adjective[2])
                options += [f"from the {first} to the {last}"]
            return self.pick(options)
        if descending:
            return f"in reverse alphabetical order of {said}"
        return self.pick((f"in alphabetical order of {said}", f"sorted alphabetically by {said}"))

"""From the tree to a question in English."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.text2sql.explore.synthesizers.naming import VAGUE, Naming, Noun
from tutelage.text2sql.explore.synthesizers.offline_clauses import ADJECTIVES, Clauses, Modifier
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    Aggregate,
    Combine,
    Comparison,
    Condition,
    Cte,
    Linked,
    Order,
    Query,
    Ref,
)
from tutelage.text2sql.explore.synthesizers.roles import Roles
from tutelage.text2sql.explore.words import article, listed, plural_phrase, spoken_number

_SHOW = ("Show", "List", "Give", "Find", "Return", "Display", "List", "Show me", "Give me", "Please list", "Report")
_THRESHOLD: dict[Comparison, tuple[str, ...]] = {
    ">=": ("at least {}",),
    ">": ("more than {}",),
    "<": ("fewer than {}",),
    "<=": ("at most {}",),
    "=": ("exactly {}",),
}


@dataclass(frozen=True, slots=True)
class Key:
    """What the groups are called; ``noun`` where each group is a thing of its own, such as a country."""

    one: str
    many: str
    noun: Noun | None
    shown: str  # what is listed of each: "name"


def realise(query: Query, *, naming: Naming, roles: Roles, rng: np.random.Generator) -> str:
    """Say a tree as a question; the generator chooses the wording."""
    clauses = Clauses(naming, roles, rng, "'" if rng.random() < 0.5 else '"')
    sentence = _Sentence(query, clauses)
    if query.cte:
        text = sentence.cte()
    elif query.window:
        text = sentence.window()
    elif query.combine:
        text = sentence.combined(query.combine)
    elif query.grouped:
        text = sentence.grouped()
    elif query.aggregates:
        text = sentence.aggregated()
    else:
        text = sentence.listed()
    text = re.sub(r"\s+", " ", text).strip().replace(" ,", ",").replace(" .", ".").replace(" ?", "?")
    return text[:1].upper() + text[1:]


class _Sentence:
    def __init__(self, query: Query, clauses: Clauses) -> None:
        self.query, self.nodes, self.clauses = query, query.nodes, clauses
        self.pick, self.naming = clauses.pick, clauses.naming
        self.view = query.subject
        self.rows = self.naming.noun(self.nodes[self.view].table)
        if query.grouped and self.naming.is_bridge(self.nodes[0].table):
            key = (query.group_key or query.select)[0]
            if key.node:
                self.rows, self.view = clauses.across(self.nodes, key.node)
            else:  # grouped by the bridge's own key
                links = self.naming.links_from(self.nodes[0].table)
                other = [link for link in links if key.column not in link.columns]
                if other:
                    self.rows = other[0].noun

    # ---- noun phrases

    def modifiers(self, conditions: Sequence[Condition]) -> list[Modifier]:
        return self.clauses.modifiers(self.nodes, conditions, self.view)

    def _node_of(self, condition: Condition) -> int:
        return condition.node if isinstance(condition, Linked) else condition.ref.node

    def many(self, conditions: Sequence[Condition], *, determined: bool = False) -> str:
        """The rows, as several: ``singers older than 30``."""
        modifiers = self.modifiers(conditions) + self._bound()
        head = self.rows.many
        if determined:
            # A join leaves out the rows that lead nowhere.
            some = modifiers or len(self.nodes) > 1
            head = ("the " if some else self.pick(("all ", "all the ", "the "))) + head
        return self.clauses.attach(head, modifiers)

    def one(self, conditions: Sequence[Condition]) -> str:
        """The rows, one by one: ``singer older than 30``; verbs agree with one."""
        modifiers = self.modifiers(conditions) + self._bound()
        return _singular_verbs(self.clauses.attach(self.rows.one, modifiers))

    def _bound(self) -> list[Modifier]:
        """A join that only keeps the rows that have others must be said."""
        query = self.query
        if not query.subject or query.grouped:
            return []

        def beyond(node: int) -> bool:
            return self.clauses.path(self.nodes, query.subject, node) is None

        used = [ref.node for ref in query.select] + [self._node_of(condition) for condition in query.where]
        if any(beyond(node) for node in used):
            return []
        noun, _ = self.clauses.across(self.nodes, query.subject)
        have = self.clauses.have(self.nodes[0].table, self.nodes[query.subject].columns)
        return [("that", self.pick((f"{have} at least one {noun.one}", f"{have} {article(noun.one)} {noun.one}")))]

    def columns(self, refs: Sequence[Ref], *, many: bool, possessed: bool = False) -> tuple[str, str]:
        """The columns of the rows themselves, and those of other things with whose they are."""
        own: list[str] = []
        others: dict[str, list[str]] = {}
        for ref in refs:
            said = self.clauses.column(self.nodes, ref)
            path = self.clauses.path(self.nodes, self.view, ref.node)
            if path == []:
                own.append(plural_phrase(said) if many else said)
                continue
            its = "their" if many else self.rows.its
            if path is None:
                whose = self._beyond_owner(ref.node)
                others.setdefault(whose, []).append(plural_phrase(said))
            else:
                last = path[-1].many if many and len(path) == 1 else path[-1].one
                owner = "".join(f"{noun.one}'s " for noun in path[:-1])
                others.setdefault(f"{its} {owner}{last}", []).append(plural_phrase(said) if many else said)
        rest = [f"the {listed(said)} of {whose}" for whose, said in others.items()]
        return listed(own), listed(rest)

    def _beyond_owner(self, node: int) -> str:
        """Whose column it is, for what the subject does not lead to itself: their pets."""
        noun, reached = self.clauses.across(self.nodes, self.query.subject)
        path = self.clauses.path(self.nodes, reached, node) or []
        # Once some of them have been singled out, the others are not asked for.
        subject = self.query.subject
        chosen = any(self.clauses.path(self.nodes, subject, self._node_of(part)) is None for part in self.query.where)
        their = "those" if chosen else "their"
        if not path:
            return f"{their} {noun.many}"
        return f"the {path[-1].many} of {their} {noun.many}"

    # ---- lists

    def listed(self) -> str:
        query = self.query
        if query.limit is not None and query.order is not None:
            return self._superlative(query.order, query.limit)
        own, rest = self.columns(query.select, many=True)
        own_one, rest_one = self.columns(query.select, many=False)
        tail = ""
        if query.order and isinstance(query.order.by, Ref):
            said = self._ordered_by(query.order.by)
            tail = ", " + self.clauses.order(self.nodes, query.order.by, descending=query.order.descending, said=said)
        verb = self.pick(_SHOW)
        if query.distinct and not self._identified():
            return self._distinct(own, verb, tail)
        with_rest = f" {self.pick(('together with', 'along with', 'and'))} {rest}" if rest else ""
        if not own:
            each = self.one(query.where)
            return f"For each {each}, {verb.lower()} {rest_one}{tail}."
        options = []
        rows = self.many(query.where, determined=True)
        simple = not with_rest or len(query.where) == 0
        if simple:
            options += [f"{verb} the {own} of {rows}{with_rest}{tail}."] * 3
            if not tail:
                options += [f"What are the {own} of {rows}{with_rest}?"] * 2
            if not tail and query.where and not rest:
                options += [self._which(own)]
        if len(query.select) > 1 and self.rows.one != self.rows.many:
            comma = "," if query.where else ""
            and_rest = f"{comma} {self.pick(('and', 'along with', 'as well as'))} {rest_one}" if rest_one else ""
            if query.subject == 0:
                options += [
                    f"For each {self.one(query.where)}, {verb.lower()} {self.rows.its} {own_one}{and_rest}{tail}."
                ]
                options += [f"{verb} the {own_one} of each {self.one(query.where)}{and_rest}{tail}."]
        if not options:
            options = [f"{verb} the {own} of {rows}, {self.pick(('together with', 'along with', 'and'))} {rest}{tail}."]
        if not rest and not query.where and not tail and len(query.select) == 1 and self.rows.person:
            options += [f"What {self.pick(('are the', 'are the'))} {own} of the {self.rows.many}?"]
        return self.pick(options)

    def _identified(self) -> bool:
        """Whether what is listed tells the subject's rows apart, so that there are no repetitions to speak of."""
        mine = {ref.column for ref in self.query.select if ref.node == self.view}
        table = self.nodes[self.view].table
        label = self.naming.label(table)
        if any(self.clauses.roles.of(table, column).unique for column in mine):
            return True
        return len(label) > 1 and mine >= set(label)  # first and last name

    def _which(self, own: str) -> str:
        """``Which singers are older than 30? List their names.``"""
        modifiers = self.modifiers(self.query.where) + self._bound()
        kind, text = modifiers[0]
        rest = self.clauses.attach("", modifiers[1:])
        ask = f"{self.pick(('List', 'Show', 'Give', 'Return'))} their {own}."
        if kind == "whose" or rest:
            return f"{self.pick(_SHOW)} the {own} of the {self.clauses.attach(self.rows.many, modifiers)}."
        predicate = {"plain": f"are {text}", "with": f"have {text}", "that": text}[kind]
        return f"Which {self.rows.many} {predicate}? {ask}"

    def _distinct(self, own: str, verb: str, tail: str) -> str:
        query = self.query
        different = self.pick(("different", "distinct", "unique"))
        rows = self.many(query.where)
        if len(query.select) > 1:
            own_one, _ = self.columns(query.select, many=False)
            return f"{verb} the {different} combinations of {own_one} {self.pick(('of', 'among'))} {rows}{tail}."
        options = [f"{verb} the {different} {own} of {rows}{tail}."]
        if not tail:
            options += [f"What are the {different} {own} of {rows}?"]
            if not query.subject and not query.where:
                options += [f"What {different} {own} do {rows} have?", f"What {different} {own} occur among {rows}?"]
        return self.pick(options)

    def _ordered_by(self, ref: Ref) -> str:
        """What a list is sorted by, with its owner where that is another thing."""
        path = self.clauses.path(self.nodes, self.view, ref.node)
        said = self.clauses.column(self.nodes, ref)
        if path:
            return f"{path[-1].one} {said}" if said.lower() in VAGUE else f"{said} of the {path[-1].one}"
        others = [other for other in self.query.select if other.node != ref.node]
        if others and (
            said.lower() in VAGUE or any(self.clauses.column(self.nodes, other) == said for other in others)
        ):
            return f"{self.rows.one} {said}"
        return said

    def superlative(self, order: Order, limit: int, conditions: Sequence[Condition]) -> str:
        """The rows that order and limit leave: ``the 3 oldest singers from France``."""
        by = order.by
        assert isinstance(by, Ref)
        said, profile = self.clauses.column(self.nodes, by), self.clauses.profile(self.nodes, by)
        path = self.clauses.path(self.nodes, self.view, by.node)
        count = self.pick((str(limit), spoken_number(limit))) if limit > 1 else ""
        noun = self.rows.many if limit > 1 else self.rows.one
        adjective = ADJECTIVES.get(said.lower())
        modifiers = self.modifiers(conditions)
        if path:
            most = self.clauses.extreme(said, profile, highest=order.descending)
            owner = "'s ".join(n.one for n in path)
            verb = "have" if limit > 1 else "has"
            text = f"{owner} {verb.replace('have', 'has')} the {most}"
            body = self._agreeing(self.clauses.attach(noun, modifiers), limit)
            return f"the {count} {body}, taking {'those' if limit > 1 else 'the one'} whose {text}"
        if adjective:
            word = adjective[2 if order.descending else 3]
            return f"the {count} {self._agreeing(self.clauses.attach(f'{word} {noun}', modifiers), limit)}"
        most = self.clauses.extreme(said, profile, highest=order.descending)
        if said.startswith("number of "):
            most = f"{'most' if order.descending else 'fewest'} {said[len('number of ') :]}"
        if not modifiers:
            return f"the {count} {noun} with the {most}"
        if all(kind == "plain" for kind, _ in modifiers):
            return f"the {count} {self._agreeing(self.clauses.attach(noun, modifiers), limit)} with the {most}"
        among = self.clauses.attach(self.rows.many, modifiers)
        return f"the {count} {noun} with the {most} among {among}"

    def _agreeing(self, text: str, limit: int) -> str:
        return _singular_verbs(text) if limit == 1 else text

    def _superlative(self, order: Order, limit: int) -> str:
        query = self.query
        rows = self.superlative(order, limit, query.where)
        own, rest = self.columns(query.select, many=limit > 1)
        with_rest = f" and {rest}" if rest else ""
        be = "are" if limit > 1 or len(query.select) > 1 else "is"
        what = f"the {own} of {rows}{with_rest}" if own else f"{rest} for {rows}"
        if own and rest and " among " in rows:
            what = f"the {own} and {rest}, for {rows}"
        return self.pick((f"What {be} {what}?", f"{self.pick(_SHOW)} {what}.", f"Find {what}."))

    # ---- aggregates

    def aggregated(self) -> str:
        query = self.query
        first = query.aggregates[0]
        rows = self.many(query.where)
        the_rows = self.many(query.where, determined=True)
        counts = self._counts_rows(first)
        if len(query.aggregates) == 1:
            if counts:
                how_many = self._how_many(self.modifiers(query.where) + self._bound())
                return self.pick((
                    f"{how_many}?", f"{how_many}?", f"{how_many}?", f"Count the {rows}.",
                    f"What is the number of {rows}?", f"Find the number of {rows}.", f"What is the total number of {rows}?",
                ))  # fmt: skip
            said = self.clauses.aggregate(self.nodes, first, self.rows)
            ask = (
                self.pick(("Find", "Calculate", "Give", "Show", "Compute"))
                if first.function in ("avg", "sum")
                else "Find"
            )
            options = [f"What is the {said} of {the_rows}?"] * 3 + [f"{ask} the {said} of {the_rows}."]
            if first.function == "count" and first.distinct and first.ref is not None:
                said = plural_phrase(self.clauses.full(self.nodes, first.ref))
                different = self.pick(("different", "distinct"))
                asked = f"are there among {the_rows}" if query.where else f"do {the_rows} have"
                options = [f"How many {different} {said} are there among {the_rows}?",
                           f"How many {different} {said} {asked}?",
                           f"Count the {different} {said} of {the_rows}."]  # fmt: skip
            elif query.where:
                options += [f"Among {rows}, what is the {said}?"]
            return self.pick(options)
        if counts:
            others = [self.clauses.aggregate(self.nodes, part, self.rows) for part in query.aggregates[1:]]
            return self.pick((
                f"{self._how_many(self.modifiers(query.where) + self._bound())}, and what is their {listed(others)}?",
                f"Find the number of {rows}, as well as their {listed(others)}.",
            ))  # fmt: skip
        said = self._aggregates_text(query.aggregates)
        return self.pick(
            (f"What are the {said} of {the_rows}?", f"{self.pick(('Find', 'Show', 'Give'))} the {said} of {the_rows}.")
        )

    def _how_many(self, modifiers: list[Modifier]) -> str:
        """``how many singers are older than 30``, ``how many cars are there with at least 4 cylinders``."""
        if len(modifiers) == 1:
            kind, text = modifiers[0]
            if kind == "that":
                return f"how many {self.rows.many} {text}"
            if kind == "plain" and not text.startswith("where"):
                return f"how many {self.rows.many} are {text}"
        plain = [part for part in modifiers if part[0] == "plain"]
        others = [part for part in modifiers if part[0] != "plain"]
        return f"how many {self.clauses.attach(f'{self.clauses.attach(self.rows.many, plain)} are there', others)}"

    def _counts_rows(self, aggregate: Aggregate) -> bool:
        """Whether an aggregate counts the things themselves (by their key, where a join could repeat them)."""
        if aggregate.function != "count":
            return False
        if aggregate.ref is None:
            return True
        return aggregate.ref.node == self.query.subject != 0 and aggregate.distinct

    def _aggregates_text(self, aggregates: Sequence[Aggregate]) -> str:
        """Several aggregates; of one column they share its name: ``minimum and maximum age``."""
        refs = {aggregate.ref for aggregate in aggregates}
        words = {"min": "minimum", "max": "maximum", "avg": "average", "sum": "total"}
        if len(refs) == 1 and None not in refs and all(aggregate.function in words for aggregate in aggregates):
            ref = next(ref for ref in refs if ref is not None)
            if self.clauses.profile(self.nodes, ref).role not in ("date", "year"):
                said = self.clauses.column(self.nodes, ref)
                return f"{listed([words[aggregate.function] for aggregate in aggregates])} {said}"
        return listed([self.clauses.aggregate(self.nodes, aggregate, self.rows) for aggregate in aggregates])

    # ---- groups

    def key(self) -> Key:
        """What the groups are called."""
        refs = self.query.select
        node = refs[0].node
        labels = [self.clauses.column(self.nodes, ref) for ref in refs]
        table = self.nodes[node].table
        entity = node != 0 and all(
            ref.node == node
            and (ref.column in self.naming.label(table) or self.clauses.roles.of(table, ref.column).unique)
            for ref in refs
        )
        if entity:
            noun = self.clauses.noun(self.nodes, node)
            if self.naming.same_thing(self.nodes[0].table, self.nodes[node].columns):
                noun = self.naming.noun(self.nodes[0].table)
            return Key(noun.one, noun.many, noun, listed(labels))
        said = [self._group_name(ref) for ref in refs]
        if len(said) == 1:
            return Key(said[0], plural_phrase(said[0]), None, said[0])
        return Key(f"combination of {listed(said)}", f"combinations of {listed(said)}", None, listed(said))

    def _group_name(self, ref: Ref) -> str:
        said = self.clauses.column(self.nodes, ref)
        if ref.node and (said.lower() in VAGUE or said.split(" ")[-1] in ("ID",)):
            return f"{self.clauses.noun(self.nodes, ref.node).one} {said}"
        if not ref.node and said.lower() in VAGUE:
            return f"{self.naming.noun(self.nodes[0].table).one} {said}"
        return said

    def _key_conditions(self) -> tuple[list[Condition], list[Condition]]:
        """Conditions on the groups' own things, and those on the rows within them."""
        node = self.query.select[0].node
        if not node or self.key().noun is None:
            return [], list(self.query.where)
        mine = [
            part for part in self.query.where if self.clauses.path(self.nodes, node, self._node_of(part)) is not None
        ]
        return mine, [part for part in self.query.where if part not in mine]

    def _rows_in_groups(self, conditions: Sequence[Condition]) -> str:
        return self.clauses.attach(self.rows.many, self.clauses.modifiers(self.nodes, conditions, self.view))

    def grouped(self) -> str:
        query, key = self.query, self.key()
        mine, inner = self._key_conditions()
        node = query.select[0].node
        key_modifiers = self.clauses.modifiers(self.nodes, mine, node)
        rows = self._rows_in_groups(inner)
        lead = ""
        crowded = query.having or query.order or len(query.aggregates) > 1
        if inner and (crowded or self.clauses.rng.random() < 0.25):
            lead = f"{self.pick(('Considering only', 'Among', 'Looking only at'))} {rows}, "
            rows = self.rows.many
        if query.having:
            key_modifiers = [*key_modifiers, self._having(rows, key)]
        what = self._group_values(query.aggregates, rows, key)
        if query.limit is not None and query.order is not None:
            return self._led(lead, self._group_superlative(query.order, query.limit, key, key_modifiers, rows, what))
        one = _singular_verbs(self.clauses.attach(key.one, key_modifiers))
        tail = f", {self._group_order(query.order, key)}" if query.order else ""
        verb = self.pick(_SHOW)
        its_shown = f"the {key.shown} and " if key.noun else ""
        shown_key = f"the {key.shown} of each {one}" if key.noun else f"each {one}"
        options = [
            f"{verb} {shown_key} {self.pick(('and', 'with', 'together with', 'along with'))} {what}{tail}.",
            f"For each {one}, {self.pick(('show', 'find', 'give', 'list', 'report'))} {its_shown}{what}{tail}.",
        ]
        if len(query.aggregates) == 1 and not tail and not key_modifiers:
            if query.aggregates[0].ref is None:
                if key.noun:
                    options += [f"How many {rows} does each {one} have? {self.pick(('Show', 'Give', 'List'))} "
                                f"the {key.one} {key.shown} and the number."] * 2  # fmt: skip
                else:
                    how_many = self._how_many(self.clauses.modifiers(self.nodes, [] if lead else inner, self.view))
                    options += [f"How many {rows} are there for each {one}?", f"For each {one}, {how_many}?",
                                f"What is the number of {rows} for each {one}?", f"Count the {rows} for each {one}."]  # fmt: skip
            elif not key.noun:
                options += [f"What is {what} for each {one}?"] * 2
        return self._led(lead, self.pick(options))

    @staticmethod
    def _led(lead: str, text: str) -> str:
        return f"{lead}{text[:1].lower()}{text[1:]}" if lead else text

    def _group_values(self, aggregates: Sequence[Aggregate], rows: str, key: Key) -> str:
        """The groups' values: ``the number of singers and their average age``."""
        parts = []
        for index, aggregate in enumerate(aggregates):
            if aggregate.ref is None:
                parts.append(f"the number of {rows}")
                continue
            said = self.clauses.aggregate(self.nodes, aggregate, self.rows)
            if index:
                parts.append(f"their {said}")
            elif key.noun:
                parts.append(f"the {said} of {key.noun.its} {rows}")
            else:
                parts.append(f"the {said} of {rows if len(aggregates) == 1 else 'the ' + rows}")
        return listed(parts)

    def _having(self, rows: str, key: Key) -> Modifier:
        having = self.query.having
        assert having is not None
        value = self.clauses.value(having.value)
        if having.aggregate.ref is None:
            number = int(float(having.value))
            said = value if self.clauses.rng.random() < 0.5 else spoken_number(number)
            rows = _singular_first(rows, self.rows) if number == 1 else rows
            threshold = self.pick(_THRESHOLD[having.op]).format(said)
            return self.pick_modifier(
                [("with", f"{threshold} {rows}"), ("that", f"have {threshold} {rows}")]
                if key.noun
                else [("with", f"{threshold} {rows}")]
            )
        said = self.clauses.aggregate(self.nodes, having.aggregate, self.rows)
        how = {">": "above", "<": "below", ">=": "at least", "<=": "at most"}.get(having.op, "")
        if having.aggregate.function == "count":
            counted = said.removeprefix("number of ")
            return "with", f"{self.pick(_THRESHOLD[having.op]).format(value)} {counted} among its {self.rows.many}"
        if having.op in (">=", "<="):
            return "plain", f"where the {said} of {rows} is {how} {value}"
        return (
            "plain",
            f"where the {said} of {rows} is {self.pick((how, 'more than' if how == 'above' else 'less than'))} {value}",
        )

    def pick_modifier(self, options: list[Modifier]) -> Modifier:
        return options[int(self.clauses.rng.integers(len(options)))]

    def _group_order(self, order: Order, key: Key) -> str:
        if isinstance(order.by, Ref):
            said = self.clauses.column(self.nodes, order.by)
            return self.clauses.order(self.nodes, order.by, descending=order.descending, said=said)
        if order.by.ref is None:
            few, many = f"the fewest {self.rows.many}", f"the most {self.rows.many}"
            first, last = (many, few) if order.descending else (few, many)
            return self.pick((f"from {first} to {last}",
                              f"sorted by the number of {self.rows.many} from {'highest to lowest' if order.descending else 'lowest to highest'}",
                              f"in {'descending' if order.descending else 'ascending'} order of the number of {self.rows.many}"))  # fmt: skip
        said = self.clauses.aggregate(self.nodes, order.by, self.rows)
        return self.pick((f"in {'descending' if order.descending else 'ascending'} order of the {said}",
                          f"sorted by the {said} from {'highest to lowest' if order.descending else 'lowest to highest'}"))  # fmt: skip

    def _most(self, order: Order, rows: str) -> str:
        """What the first group has: ``the most singers``, ``the highest average age of singers``."""
        by = order.by
        assert isinstance(by, Aggregate)
        if by.ref is None:
            return f"the {'most' if order.descending else 'fewest'} {rows}"
        said = self.clauses.aggregate(self.nodes, by, self.rows)
        return f"the {'highest' if order.descending else 'lowest'} {said} of {rows}"

    def _group_superlative(
        self, order: Order, limit: int, key: Key, modifiers: list[Modifier], rows: str, what: str
    ) -> str:
        most = self._most(order, rows)
        its = f"{key.noun.its} {key.shown}" if key.noun else ""
        many_key = self.clauses.attach(key.many, modifiers)
        if limit == 1:
            one_key = _singular_verbs(self.clauses.attach(key.one, modifiers))
            ask = f"Show {its + ' and ' if its else 'it with '}{what}."
            options = [f"Which {one_key} has {most}? {ask}"] if not modifiers else []
            if modifiers:
                options = [f"Among the {many_key}, which one has {most}? {ask}"]
            return self.pick(options)
        count = self.pick((str(limit), spoken_number(limit)))
        shown = f"the {plural_phrase(key.shown)} and " if key.noun else ""
        if modifiers:
            return f"Among the {many_key}, which {count} have {most}? Show {shown or 'them with '}{what}{' for each' if key.noun else ''}."
        return self.pick((
            f"Which {count} {many_key} have {most}? Show {shown or 'them with '}{what}{' for each' if key.noun else ''}.",
            f"{self.pick(_SHOW)} the {count} {many_key} with {most}, {'giving ' + shown if shown else 'along with '}{what}.",
        ))  # fmt: skip

    # ---- set operations

    def combined(self, combine: Combine) -> str:
        query = self.query
        base, first, second = query.where[:-1], query.where[-1], combine.where
        own, _ = self.columns(query.select, many=True)
        one_column = len(query.select) == 1
        verb = self.pick(_SHOW)
        if query.subject == 0 and one_column and self._value_of_rows(query.select[0]):
            # A category's values: "Which countries have both singers older than 40 and singers younger than 25?"
            key = plural_phrase(self._group_name(query.select[0]))
            left, right = self._rows_where([*base, first]), self._rows_where([*base, second])
            if combine.op == "intersect":
                return self.pick(
                    (
                        f"Which {key} have both {left} and {right}?",
                        f"{verb} the {key} that have both {left} and {right}.",
                    )
                )
            if combine.op == "union":
                return self.pick(
                    (f"Which {key} have {left} or {right}?", f"{verb} the {key} that have {left} or {right}.")
                )
            return self.pick(
                (f"Which {key} have {left} but no {right}?", f"{verb} the {key} that have {left} but no {right}.")
            )
        left = self.clauses.attach("", self.modifiers([*base, first])).strip()
        right = self.clauses.attach("", self.modifiers([second])).strip()
        rows = self.rows.many
        if query.subject and combine.op != "union":
            noun, inner = self.clauses.across(self.nodes, query.subject)
            a = self.clauses.attach(noun.one, self.clauses.modifiers(self.nodes, [first], inner))
            b = self.clauses.attach(noun.one, self.clauses.modifiers(self.nodes, [second], inner))
            more = self.clauses.attach("", self.modifiers(base))
            joint = " and" if more else ""
            if combine.op == "intersect":
                return (
                    f"{verb} the {own} of the {rows}{more}{joint} that have both {article(a)} {a} and {article(b)} {b}."
                )
            return f"{verb} the {own} of the {rows}{more}{joint} that have {article(a)} {a} but no {b}."
        if combine.op == "union":
            return self.pick((f"{verb} the {own} of the {rows} {left}, together with those of the {rows} {right}.",
                              f"{verb} the {own} of the {rows} {left} or {right}.",
                              f"What are the {own} of the {rows} {left} or {right}?"))  # fmt: skip
        if combine.op == "intersect":
            return f"What {own} do the {rows} {left} share with the {rows} {right}?"
        return self.pick((f"{verb} the {own} of the {rows} {left}, except those of the {rows} {right}.",
                          f"What are the {own} of the {rows} {left}, leaving out those {right}?"))  # fmt: skip

    def _value_of_rows(self, ref: Ref) -> bool:
        """Whether a column is a class that rows belong to, rather than a property of one row."""
        return self.clauses.profile(self.nodes, ref).role in ("category", "year", "ordinal") or ref.node != 0

    def _rows_where(self, conditions: Sequence[Condition]) -> str:
        return self.clauses.attach(self.rows.many, self.modifiers(conditions))

    # ---- steps and windows

    def cte(self) -> str:
        query = self.query
        cte = query.cte
        assert cte is not None
        if cte.kind == "top":
            assert query.order is not None and query.limit is not None and cte.aggregate is not None
            rows = self.superlative(query.order, query.limit, query.where)
            said = self.clauses.aggregate(self.nodes, cte.aggregate, self.rows)
            return self.pick(
                (f"What is the {said} of {rows}?", f"Find the {said} of {rows}.", f"Calculate the {said} of {rows}.")
            )
        key = self.key()
        mine, inner = self._key_conditions()
        lead = f"Considering only {self._rows_in_groups(inner)}, " if inner else ""
        rows = self.rows.many
        many = self.clauses.attach(key.many, self.clauses.modifiers(self.nodes, mine, query.select[0].node))
        one = _singular_verbs(key.one + many[len(key.many) :])
        aggregate = query.aggregates[-1]
        return self._led(lead, self._over_groups(cte, aggregate, key, rows, one, many))

    def _over_groups(self, cte: Cte, aggregate: Aggregate, key: Key, rows: str, one: str, many: str) -> str:
        """What is asked of the groups' values."""
        if cte.kind == "average":
            if aggregate.ref is None:
                if key.noun:
                    return self.pick((f"What is the average number of {rows} over the {many} that have any?",
                                      f"On average, how many {rows} do the {many} that have any have?"))  # fmt: skip
                return self.pick((f"On average, how many {rows} are there for each {one}?",
                                  f"What is the average number of {rows} per {one}?"))  # fmt: skip
            said = self.clauses.aggregate(self.nodes, aggregate, self.rows)
            return self.pick((f"If the {said} of {rows} is taken for each {one}, what is the average of these values?",
                              f"What is the mean, over all {many}, of the {said} of {rows}?"))  # fmt: skip
        shown = f"the {plural_phrase(key.shown)} of the {many}" if key.noun else f"the {many}"
        what = self._group_values([aggregate], rows, key)
        if aggregate.ref is None:
            return self.pick((f"Which {many} have more {rows} than {'the average over those that have any' if key.noun else 'the average ' + key.one}? Show {'the ' + plural_phrase(key.shown) + ' and ' if key.noun else 'them with '}the number of {self.rows.many}.",
                              f"{self.pick(_SHOW)} {shown} that have more {rows} than the average over {'those that have any' if key.noun else 'all ' + key.many}, with the number of {self.rows.many}."))  # fmt: skip
        said = self.clauses.aggregate(self.nodes, aggregate, self.rows)
        return (f"{self.pick(_SHOW)} {shown} where the {said} of {rows} is above the average of this value over all {key.many}, "
                f"together with {what}.")  # fmt: skip

    def window(self) -> str:
        query = self.query
        window = query.window
        assert window is not None
        if window.kind == "share":
            key = self.key()
            mine, inner = self._key_conditions()
            lead = f"Considering only {self._rows_in_groups(inner)}, " if inner else ""
            rows = self.rows.many
            one = _singular_verbs(
                self.clauses.attach(key.one, self.clauses.modifiers(self.nodes, mine, query.select[0].node))
            )
            what = self._group_values(query.aggregates, rows, key)
            whole = "the total" if query.aggregates[-1].ref is not None else f"all {'these ' if inner else ''}{rows}"
            shown = f"the {key.shown}, " if key.noun else ""
            return self._led(lead, self.pick((f"For each {one}, show {shown}{what} and its percentage of {whole}.",
                              f"{self.pick(_SHOW)} {'the ' + key.shown + ' of ' if key.noun else ''}each {one}, {what}, and the percentage of {whole} that it makes up.")))  # fmt: skip
        assert window.ref is not None
        own, rest = self.columns(query.select, many=False)
        own = f"the {own}" if own else ""
        shown = listed([part for part in (own, rest) if part])
        joint = ", and" if " and " in shown else " and"
        said, profile = self.clauses.column(self.nodes, window.ref), self.clauses.profile(self.nodes, window.ref)
        by = self._group_name(window.by) if window.by else ""
        each = self.one(query.where)
        if window.kind == "average":
            if by:
                return self.pick((f"For each {each}, show {shown}{joint} the average {said} of all such {self.rows.many} with the same {by}.",
                                  f"{self.pick(_SHOW)} {shown} of each {each} next to the average {said} for {self.rows.its} {by}."))  # fmt: skip
            return f"{self.pick(_SHOW)} {shown} of each {each} next to the average {said} of all such {self.rows.many}."
        adjective = ADJECTIVES.get(said.lower())
        if window.kind == "rank":
            first = self.clauses.extreme(said, profile, highest=window.descending)
            start = (adjective[2] if window.descending else adjective[3]) if adjective else first
            within = f" within {self.rows.its} {by}" if by else ""
            return self.pick((f"Rank the {self.many(query.where)} by {said}{within}, {start} first, and show {shown} of each with the rank.",
                              f"{self.pick(_SHOW)} {shown} of each {each}, and {self.rows.its} rank by {said}{within}, with the {start} ranked first."))  # fmt: skip
        if adjective:
            best = f"the {adjective[2 if window.descending else 3]} {self.clauses.attach(self.rows.one, [])}"
        else:
            best = f"the {self.rows.one} with the {self.clauses.extreme(said, profile, highest=window.descending)}"
        among = f" among {self.many(query.where)}" if query.where else ""
        # "For each country" shows the country already.
        shown_refs = [ref for ref in query.select if ref != window.by]
        own, rest = self.columns(shown_refs, many=False)
        own_text = f"the {own}" if own else rest
        rest_text = f" and {rest}" if own and rest else ""
        return self.pick((f"For each {by}, show {own_text} of {best}{among}{rest_text}.",
                          f"What {'is' if len(shown_refs) == 1 else 'are'} {own_text} of {best} in each {by}{among}{rest_text}?"))  # fmt: skip


def _singular_first(text: str, noun: Noun) -> str:
    return noun.one + text[len(noun.many) :] if text.startswith(noun.many) else text


def _singular_verbs(text: str) -> str:
    """Make the verbs of ``that``-clauses agree with one: the first of a clause and those joined to it."""
    text = re.sub(r"\b(that|and) belong to\b", r"\1 belongs to", text)
    text = re.sub(r"\bthat do not belong\b", "that does not belong", text)
    text = re.sub(r"\bthat have\b", "that has", text)
    text = re.sub(r"\bthat do not have\b", "that does not have", text)
    text = re.sub(r"\bthat are\b", "that is", text)
    text = re.sub(r"\band have\b", "and has", text)
    text = re.sub(r"\band do not have\b", "and does not have", text)
    return re.sub(r"\band are\b", "and is", text)

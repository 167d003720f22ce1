"""Noun phrases of a question: the rows with their conditions, their columns, and those that order and limit leave."""

from collections.abc import Sequence

from tutelage.text2sql.explore.synthesizers.naming import VAGUE
from tutelage.text2sql.explore.synthesizers.offline_clauses import Clauses
from tutelage.text2sql.explore.synthesizers.offline_conditions import COMPARING
from tutelage.text2sql.explore.synthesizers.offline_tree import Condition, Linked, Order, Query, Ref
from tutelage.text2sql.explore.synthesizers.offline_wording import ADJECTIVES, Modifier, singular_verbs
from tutelage.text2sql.explore.words import listed, plural_phrase, spoken_number

SHOW = ("Show", "List", "Give", "Find", "Return", "Display", "List", "Show me", "Give me", "Please list", "Report")


class Phrases:
    """The noun phrases of one query; ``rows`` is what its rows are called, seen from the node ``view``."""

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

    def modifiers(self, conditions: Sequence[Condition]) -> list[Modifier]:
        """Say conditions of the rows."""
        return self.clauses.modifiers(self.nodes, conditions, self.view, more=self._is_bound())

    @staticmethod
    def node_of(condition: Condition) -> int:
        """The node that a condition is on."""
        return condition.node if isinstance(condition, Linked) else condition.ref.node

    def many(self, conditions: Sequence[Condition], *, determined: bool = False) -> str:
        """The rows, as several: ``singers older than 30``."""
        modifiers = self.modifiers(conditions) + self.bound()
        head = self.rows.many
        if determined:
            # A join leaves out the rows that lead nowhere.
            some = modifiers or len(self.nodes) > 1
            head = ("the " if some else self.pick(("all ", "all the ", "the "))) + head
        return self.clauses.attach(head, modifiers)

    def one(self, conditions: Sequence[Condition]) -> str:
        """The rows, one by one: ``singer older than 30``; verbs agree with one."""
        modifiers = self.modifiers(conditions) + self.bound()
        return singular_verbs(self.clauses.attach(self.rows.one, modifiers))

    def _is_bound(self) -> bool:
        """Whether a join only keeps the rows that have others, and nothing else says so."""
        query = self.query
        if not query.subject or query.grouped:
            return False

        def beyond(node: int) -> bool:
            return self.clauses.path(self.nodes, query.subject, node) is None

        used = [ref.node for ref in query.select] + [self.node_of(condition) for condition in query.where]
        return not any(beyond(node) for node in used)

    def bound(self) -> list[Modifier]:
        """A join that only keeps the rows that have others must be said."""
        if not self._is_bound():
            return []
        query = self.query
        noun, _ = self.clauses.across(self.nodes, query.subject)
        return [self.clauses.having_some(self.nodes[0].table, self.nodes[query.subject].columns, noun)]

    def columns(self, refs: Sequence[Ref], *, many: bool) -> tuple[str, str]:
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
                whose = self.beyond_owner(ref.node)
                others.setdefault(whose, []).append(plural_phrase(said))
            else:
                last = path[-1].many if many and len(path) == 1 else path[-1].one
                owner = "".join(f"{noun.one}'s " for noun in path[:-1])
                others.setdefault(f"{its} {owner}{last}", []).append(plural_phrase(said) if many else said)
        rest = [
            # "The languages of their country languages"
            f"{whose.split(' ')[0]} {said[0]}" if whose.endswith(f" {said[0]}") and len(said) == 1
            else f"the {listed(said)} of {whose}"
            for whose, said in others.items()
        ]  # fmt: skip
        return listed(own), listed(rest)

    def beyond_owner(self, node: int) -> str:
        """Whose column it is, for what the subject does not lead to itself: their pets."""
        noun, reached = self.clauses.across(self.nodes, self.query.subject)
        path = self.clauses.path(self.nodes, reached, node) or []
        # Once some of them have been singled out, the others are not asked for.
        subject = self.query.subject
        chosen = any(self.clauses.path(self.nodes, subject, self.node_of(part)) is None for part in self.query.where)
        role = "" if chosen else self.clauses.as_role(self.nodes[0].table, self.nodes[subject].columns)
        theirs = f"{'those' if chosen else 'their'} {noun.many}{role}"
        return f"the {path[-1].many} of {theirs}" if path else theirs

    def group_name(self, ref: Ref) -> str:
        """What a class of rows is called, with whose it is where that must be said: ``pet type``."""
        said = self.clauses.column(self.nodes, ref)
        if ref.node and (said.lower() in VAGUE or said.endswith("ID")):
            return f"{self.clauses.noun(self.nodes, ref.node).one} {said}"
        if not ref.node and said.lower() in VAGUE:
            return f"{self.naming.noun(self.nodes[0].table).one} {said}"
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
            owner = "'s ".join(part.one for part in path)
            body = self.agreeing(self.clauses.attach(noun, modifiers), limit)
            return f"the {count} {body}, taking {'those' if limit > 1 else 'the one'} whose {owner} has the {most}"
        if adjective:
            word = adjective[2 if order.descending else 3]
            return f"the {count} {self.agreeing(self.clauses.attach(f'{word} {noun}', modifiers), limit)}"
        most = self.clauses.extreme(said, profile, highest=order.descending)
        if said.startswith("number of "):
            most = f"{'most' if order.descending else 'fewest'} {said[len('number of ') :]}"
        if not modifiers:
            return f"the {count} {noun} with the {most}"
        compared = any(isinstance(part, COMPARING) for part in conditions)
        if not compared and all(kind == "plain" for kind, _ in modifiers):
            return f"the {count} {self.agreeing(self.clauses.attach(noun, modifiers), limit)} with the {most}"
        among = self.clauses.attach(self.rows.many, modifiers)
        return f"the {count} {noun} with the {most} among {among}"

    @staticmethod
    def agreeing(text: str, limit: int) -> str:
        """Make verbs agree with how many rows there are."""
        return singular_verbs(text) if limit == 1 else text

    def how_many(self, modifiers: list[Modifier]) -> str:
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


def led(lead: str, text: str) -> str:
    """Put words before a sentence."""
    return f"{lead}{text[:1].lower()}{text[1:]}" if lead else text

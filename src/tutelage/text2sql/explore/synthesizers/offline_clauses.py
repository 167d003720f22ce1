"""The clauses of a question: conditions gathered on a noun, aggregates, orders."""

import re
from collections.abc import Sequence

from tutelage.text2sql.explore.synthesizers.naming import VAGUE, Noun
from tutelage.text2sql.explore.synthesizers.offline_conditions import COMPARING, modifier
from tutelage.text2sql.explore.synthesizers.offline_tree import Aggregate, Condition, Linked, Node, Ref
from tutelage.text2sql.explore.synthesizers.offline_wording import ADJECTIVES, Modifier, Wording, singular_verbs
from tutelage.text2sql.explore.words import article, plural_phrase


class Clauses(Wording):
    """Says the clauses of one question."""

    def modifiers(
        self, nodes: tuple[Node, ...], conditions: Sequence[Condition], view: int, *, more: bool = False
    ) -> list[Modifier]:
        """Say conditions as modifiers of the rows of ``view``; those it does not lead to make one clause together.

        Args:
            nodes: The join tree.
            conditions: What is said.
            view: The node that the rows are of.
            more: Something else is said of the rows beside this.
        """
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
        alone = len(conditions) == 1 and not more
        # The rows' own first: after "whose owner's city is …" all that follows would be the owner's.
        for condition, path in sorted(reached, key=lambda pair: (len(pair[1]), isinstance(pair[0], COMPARING))):
            # Two "with" in a row are hard to read.
            plainly = any(kind == "with" for kind, _ in said)
            if isinstance(condition, Linked):
                said.append(self._linked(condition, path))
            else:
                said.append(modifier(self, nodes, condition, path, plainly=plainly, alone=alone))
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
        inside = singular_verbs(self.attach("", self.modifiers(nodes, conditions, inner)))
        return self.having_some(nodes[0].table, nodes[view].columns, noun, inside)

    def having_some(self, table: str, columns: tuple[str, ...], noun: Noun, inside: str = "") -> Modifier:
        """Say of what a key of ``table`` leads to that it has rows there: ``that have a concert``."""
        some = article(noun.one) if self.rng.random() < 0.6 else "at least one"
        return "that", f"{self.have(table, columns)} {some} {noun.one}{inside}"

    def have(self, table: str, columns: tuple[str, ...]) -> str:
        """The verb from what a key of ``table`` leads to, to that table's rows or what they tie it to."""
        role = self.naming.among_siblings(table, columns)
        if role:
            # Where a table leads to another in several roles: players that are the winner of a match.
            return f"are the {role.one} of"
        return "belong to" if self.naming.belongs(table, columns) else "have"

    def as_role(self, table: str, columns: tuple[str, ...]) -> str:
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
            after_clause = "whose" in text[len(head) :] or " where " in text[len(head) :]
            joint = " and " if after_clause or (kind == "whose" and seen > 1) else " "
            # "That have no city whose district is … and have" would speak of the city.
            between = " and that " if kind == "that" else " and "
            text += f"{joint if kind in ('whose', 'that') else ' '}{lead}{between.join(parts)}"
            seen += len(parts)
        return text

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
        inside = self.attach("", self.modifiers(nodes, condition.where, view))
        have = self.have(nodes[0].table, condition.referring)
        plain_have = have
        if path:
            have = re.sub("^are", "is", {"have": "has", "belong to": "belongs to"}.get(have, have))
        if condition.negated and have.endswith(" of"):
            text = f"{have.replace(' the ', ' not the ', 1)} any {noun.one}{singular_verbs(inside)}"
        elif condition.negated:
            none = [f"{have} no {noun.many}{inside}"]
            if not path:
                none += [
                    f"do not {plain_have} any {noun.many}{inside}",
                    f"have no {noun.one if inside else noun.many}{singular_verbs(inside)}",
                ]
            text = self.pick(none)
        else:
            text = self.pick(
                (f"{have} at least one {noun.one}", f"{have} {article(noun.one)} {noun.one}")
            ) + singular_verbs(inside)
            if not inside and not have.endswith(" of"):
                text = self.pick((f"{have} {noun.many}", f"{have} at least one {noun.one}"))
        if path:
            return "whose", f"{self.naming_owner(path)} {text}"
        return "that", text

    @staticmethod
    def naming_owner(path: list[Noun]) -> str:
        """The noun at a path's end, with its owners."""
        return "'s ".join(noun.one for noun in path)

    def aggregate(self, nodes: tuple[Node, ...], aggregate: Aggregate, rows: Noun) -> str:
        """Say an aggregate without its rows: ``average age``, ``number of singers``."""
        if aggregate.ref is None:
            return f"number of {rows.many}"
        if aggregate not in self.said:
            self.said[aggregate] = self._aggregate_of(nodes, aggregate, aggregate.ref)
        return self.said[aggregate]

    def _aggregate_of(self, nodes: tuple[Node, ...], aggregate: Aggregate, ref: Ref) -> str:
        said, profile = self.column(nodes, ref), self.profile(nodes, ref)
        if aggregate.function == "count":
            what = self.pick(("different", "distinct"))
            return f"number of {what} {plural_phrase(self.full(nodes, ref))}"
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

"""The clauses of a question: conditions gathered on a noun, aggregates, orders."""

from collections.abc import Sequence

from tutelage.text2sql.explore.synthesizers.naming import VAGUE, Noun
from tutelage.text2sql.explore.synthesizers.offline_conditions import modifier
from tutelage.text2sql.explore.synthesizers.offline_tree import Aggregate, Condition, Linked, Node, Ref
from tutelage.text2sql.explore.synthesizers.offline_wording import ADJECTIVES, Modifier, Wording
from tutelage.text2sql.explore.words import article, plural_phrase


class Clauses(Wording):
    """Says the clauses of one question."""

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
            if isinstance(condition, Linked):
                said.append(self._linked(condition, path))
            else:
                said.append(modifier(self, nodes, condition, path, plainly=plainly))
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

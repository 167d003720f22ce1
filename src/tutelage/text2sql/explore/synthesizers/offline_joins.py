"""The join: bring in what a row leads to, or the rows that lead to it."""

from dataclasses import replace

import numpy as np

from tutelage.text2sql.explore.pair import Walk
from tutelage.text2sql.explore.synthesizers.offline_ground import MAX_COLUMNS, Ground
from tutelage.text2sql.explore.synthesizers.offline_tree import Condition, Linked, Node, Query, Ref, SameAs


class Joins(Ground):
    """Moves that add a join."""

    def join(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        """Bring in what the walk's other tables know."""
        if query.grouped:
            return self._join_key(query, walk, rng)
        if not self.is_list(query) or query.limit is not None or query.distinct or self.pinned(query):
            return None
        if self.naming.is_bridge(query.nodes[query.subject].table):
            return None
        if rng.random() < 0.5:
            return self._join_up(query, walk, rng) or self._join_down(query, walk, rng)
        return self._join_down(query, walk, rng) or self._join_up(query, walk, rng)

    def _join_up(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        """Follow a key from a node that is there."""
        links = [
            (index, link)
            for index, node in enumerate(query.nodes)
            if self._depth(query, index) < 2
            for link in self.naming.links_from(node.table)
            if link.referred in walk.tables
            and not any(other.parent == index and other.columns == link.columns for other in query.nodes)
            and not (node.parent >= 0 and query.subject and index)
        ]
        rng.shuffle(links)
        for index, link in links:
            room = max(1, MAX_COLUMNS - len(query.select))
            grown = replace(
                query, nodes=(*query.nodes, Node(link.referred, index, link.columns, link.referred_columns))
            )
            shown = self._to_show(grown, len(grown.nodes) - 1, walk, min(room, 2), rng)
            if shown:
                # The key itself has been said by what it leads to.
                kept = tuple(ref for ref in query.select if not (ref.node == index and ref.column in link.columns))
                return replace(grown, select=(*kept, *shown))
        return None

    def _depth(self, query: Query, index: int) -> int:
        depth = 0
        while query.nodes[index].parent >= 0:
            index, depth = query.nodes[index].parent, depth + 1
        return depth

    def _join_down(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        """Bring in the rows that lead to the subject: they become the anchor."""
        if query.subject or len(query.nodes) > 1:
            return None
        links = [
            link
            for link in self.naming.links_to(query.nodes[0].table)
            if (link.table in walk.tables or self.naming.is_bridge(link.table))
            and not self.naming.same_thing(link.table, link.columns)
            and self.catalog.table(link.table).num_rows
            # "that have a pet and that have a pet"
            and not any(isinstance(part, Linked) and part.nodes[0].table == link.table for part in query.where)
        ]
        rng.shuffle(links)
        for link in links:
            grown = _shifted(query)
            nodes = [
                Node(link.table),
                replace(grown.nodes[1], parent=0, columns=link.columns, referred=link.referred_columns),
            ]
            grown = replace(grown, nodes=(*nodes, *grown.nodes[2:]), subject=1)
            shown_node = 0
            if self.naming.is_bridge(link.table):
                other = next(part for part in self.naming.links_from(link.table) if part.columns != link.columns)
                if other.referred not in walk.tables:
                    continue
                grown = replace(
                    grown, nodes=(*grown.nodes, Node(other.referred, 0, other.columns, other.referred_columns))
                )
                shown_node = len(grown.nodes) - 1
            if rng.random() < 0.4 and not query.order:
                return replace(grown, distinct=True)
            shown = self._to_show(grown, shown_node, walk, min(2, max(1, MAX_COLUMNS - len(query.select))), rng)
            if shown:
                return replace(grown, select=(*grown.select, *shown))
        return None

    def _to_show(self, query: Query, node: int, walk: Walk, most: int, rng: np.random.Generator) -> list[Ref]:
        """Columns of a node worth listing: its name, or what the walk has of it."""
        table = query.nodes[node].table
        keys = {column for link in self.naming.links_from(table) for column in link.columns}
        label = [Ref(node, column) for column in self.naming.label(table)]
        others = [
            ref
            for ref in self.refs(query, node, walk, rng)
            if self.profile(query, ref).listed
            and self.profile(query, ref).role not in ("key", "text")
            and ref not in label
            and ref.column not in keys
        ]
        if label and rng.random() < 0.7:
            return [*label, *(others[: most - len(label)] if rng.random() < 0.3 and most > len(label) else [])]
        return others[:1] or label

    def _join_key(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        """Group by what the key leads to, in place of the key."""
        if len(query.select) != 1 or query.cte or query.window or query.combine:
            return None
        key = query.select[0]
        if query.order and query.order.by == key:
            return None
        for link in self.naming.links_from(query.nodes[key.node].table):
            if link.columns != (key.column,) or link.referred not in walk.tables:
                continue
            if any(other.columns == link.columns and other.parent == key.node for other in query.nodes):
                continue
            grown = replace(
                query, nodes=(*query.nodes, Node(link.referred, key.node, link.columns, link.referred_columns))
            )
            node = len(grown.nodes) - 1
            label = tuple(Ref(node, column) for column in self.naming.label(link.referred))
            classes = [ref for ref in self.refs(grown, node, walk, rng) if self.is_class(grown, ref)]
            if classes and (not label or rng.random() < 0.35) and not self.naming.is_bridge(grown.nodes[0].table):
                return replace(grown, select=(classes[0],))
            if not label:
                continue
            unique = len(label) == 1 and self.profile(grown, label[0]).unique
            group_key = () if unique else (Ref(node, link.referred_columns[0]),)
            return replace(grown, select=label, group_key=group_key)
        return None


def _shifted(query: Query) -> Query:
    """Make room for a new anchor before a tree's nodes."""

    def ref(part: Ref) -> Ref:
        return Ref(part.node + 1, part.column)

    def condition(part: Condition) -> Condition:
        if isinstance(part, Linked):
            return replace(part, node=part.node + 1)
        if isinstance(part, SameAs):
            return replace(part, ref=ref(part.ref), by=ref(part.by))
        return replace(part, ref=ref(part.ref))

    order = query.order
    if order is not None and isinstance(order.by, Ref):
        order = replace(order, by=ref(order.by))
    nodes = tuple(replace(node, parent=node.parent + 1) for node in query.nodes)
    return replace(
        query,
        nodes=(Node(""), *nodes),
        select=tuple(ref(part) for part in query.select),
        where=tuple(condition(part) for part in query.where),
        order=order,
    )

"""The moves of the offline grammar: each adds one operator to a tree, or finds that it cannot."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from tutelage.text2sql.database.catalog import Catalog
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.explore.pair import Operator, Walk
from tutelage.text2sql.explore.synthesizers.naming import Link, Naming
from tutelage.text2sql.explore.synthesizers.offline_literals import Literals
from tutelage.text2sql.explore.synthesizers.offline_sql import SqlWriter
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    AgainstAverage,
    Aggregate,
    AtExtreme,
    Combine,
    Compare,
    Condition,
    Cte,
    Function,
    InYear,
    Linked,
    Node,
    Order,
    Query,
    Ref,
    SameAs,
    Simple,
    Window,
)
from tutelage.text2sql.explore.synthesizers.roles import Profile, Roles

_MOST = {"filter": 2, "join": 2, "aggregate": 2}  # times an operator may stand in one query; others once
# How soon an operator is tried: what few trees allow comes before what nearly all do.
_WEIGHTS: dict[Operator, float] = {
    "filter": 1.0,
    "join": 1.5,
    "aggregate": 1.0,
    "group": 4.0,
    "having": 3.0,
    "order": 1.0,
    "limit": 4.0,
    "nesting": 1.0,
    "set_operation": 3.0,
    "cte": 2.5,
    "window": 1.0,
}
_MAX_COLUMNS = 4  # that a join or a window may bring a list to
_MAX_LISTED = 5  # that a projection lists; more reads as a description of the table
_SIZES = (0.3, 0.3, 0.2, 0.12, 0.08)  # how often it lists so many


class Grammar:
    """Moves over the join trees of one database."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        roles: Roles,
        naming: Naming,
        writer: SqlWriter,
        execute: Callable[[str], Result],
    ) -> None:
        self._catalog, self._roles, self._naming, self._writer = catalog, roles, naming, writer
        self._execute = execute
        self._literals = Literals(roles=roles, writer=writer, execute=execute)
        self._moves: dict[Operator, Callable[[Query, Walk, np.random.Generator], Query | None]] = {
            "filter": self._filter,
            "join": self._join,
            "aggregate": self._aggregate,
            "group": self._group,
            "having": self._having,
            "order": self._order,
            "limit": self._limit,
            "nesting": self._nesting,
            "set_operation": self._set_operation,
            "cte": self._cte,
            "window": self._window,
        }

    # ---- begin

    def begin(self, walk: Walk, rng: np.random.Generator) -> Iterator[Query]:
        """Projections of the walk's columns, several of each table."""
        for table in walk.tables:
            if not self._catalog.table(table).num_rows:
                continue
            for _ in range(4):
                shown = [column for name, column in walk.columns if name == table and self._shown(table, column, rng)]
                if shown:
                    yield self._projection(table, shown, rng)

    def _projection(self, table: str, shown: Sequence[str], rng: np.random.Generator) -> Query:
        sizes = np.arange(1, _MAX_LISTED + 1)
        chosen = _some(shown, int(rng.choice(sizes, p=_SIZES)), rng)
        label = self._naming.label(table)
        if label and rng.random() < 0.5:
            chosen = [*label, *(column for column in chosen if column not in label)][:_MAX_LISTED]
        if self._naming.is_bridge(table):
            # One key of a pair says nothing; both do.
            chosen = [link.columns[0] for link in self._naming.links_from(table)]
        # In the table's order: the same columns in another order ask for the same.
        order = [column.name for column in self._catalog.table(table).columns]
        chosen.sort(key=lambda column: (column not in label, order.index(column)))
        profile = self._roles.of(table, chosen[0])
        distinct = len(chosen) == 1 and not profile.unique and profile.role != "key" and rng.random() < 0.6
        return Query((Node(table),), tuple(Ref(0, column) for column in chosen), distinct=distinct)

    def _shown(self, table: str, column: str, rng: np.random.Generator) -> bool:
        role = self._roles.of(table, column).role
        # Nobody asks to see a yes or no.
        return role not in ("empty", "flag") and (role != "key" or rng.random() < 0.25)

    # ---- extend

    def extend(
        self, query: Query, walk: Walk, operators: Sequence[str], rng: np.random.Generator
    ) -> Iterator[tuple[Operator, Query]]:
        """Trees with one operator more, in random order; an operator may come several times."""
        open_moves: list[Operator] = [name for name in self._moves if operators.count(name) < _MOST.get(name, 1)]
        weights = np.array([_WEIGHTS[name] * 0.3 ** operators.count(name) for name in open_moves])
        for _ in range(4):
            # Weighted, without replacement: the larger the weight, the sooner its turn.
            for index in np.argsort(-(rng.random(len(open_moves)) ** (1 / weights))):
                operator = open_moves[int(index)]
                grown = self._moves[operator](query, walk, rng)
                if grown is not None:
                    yield operator, grown

    # ---- helpers

    def _profile(self, query: Query, ref: Ref) -> Profile:
        return self._roles.of(query.nodes[ref.node].table, ref.column)

    def _refs(self, query: Query, node: int, walk: Walk, rng: np.random.Generator) -> list[Ref]:
        """A node's columns in random order; those of the walk come first, most of the time."""
        table = query.nodes[node].table
        names = [column.name for column in self._catalog.table(table).columns]
        walked = {column for name, column in walk.columns if name == table}
        weights = np.array([4.0 if name in walked else 1.0 for name in names])
        keys = rng.random(len(names)) ** (1 / weights)
        return [Ref(node, names[int(index)]) for index in np.argsort(-keys)]

    def _entity_nodes(self, query: Query) -> list[int]:
        """The nodes whose columns may be asked about: not a mere bridge."""
        return [index for index, node in enumerate(query.nodes) if not self._naming.is_bridge(node.table)]

    def _is_list(self, query: Query) -> bool:
        return not (query.aggregates or query.grouped or query.combine or query.cte or query.window)

    def _pinned(self, query: Query) -> bool:
        """Whether a condition leaves one row: sorting or counting it asks for nothing."""
        return any(
            isinstance(part, Compare)
            and part.op == "="
            and (self._profile(query, part.ref).unique or self._profile(query, part.ref).role in ("name", "text"))
            for part in query.where
        )

    def _idle_join(self, query: Query) -> bool:
        """Whether some node would not be spoken of without the columns listed."""
        used = {part.node if isinstance(part, Linked) else part.ref.node for part in query.where} | {0, query.subject}
        for node in tuple(used):
            while query.nodes[node].parent >= 0:
                node = query.nodes[node].parent
                used.add(node)
        return len(used) < len(query.nodes)

    def _settled(self, query: Query) -> set[Ref]:
        """Columns of which the conditions leave one value, or nearly."""
        return {
            part.ref
            for part in query.where
            if isinstance(part, AtExtreme | SameAs | InYear) or (isinstance(part, Compare) and part.op == "=")
        }

    def _conditioned(self, query: Query) -> set[Ref]:
        return {part.ref for part in query.where if not isinstance(part, Linked)}

    # ---- filter

    def _filter(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if self._pinned(query):
            return None
        nodes = self._entity_nodes(query)
        rng.shuffle(nodes)
        taken = self._conditioned(query) | ({*query.select} if query.grouped else set())
        taken |= {part.ref for part in query.aggregates if part.ref is not None}
        if query.order and isinstance(query.order.by, Ref):
            taken.add(query.order.by)
        if query.window and query.window.by:
            taken.add(query.window.by)
        for node in nodes:
            for ref in self._refs(query, node, walk, rng)[:4]:
                if ref in taken:
                    continue
                condition = self._literals.condition(
                    query, ref, rng, single=not self._is_list(query) or bool(query.order)
                )
                if condition is None:
                    continue
                exact = isinstance(condition, Compare) and condition.op == "="
                if exact and ref in query.select:
                    if len(query.select) == 1:
                        continue
                    # What is given is not asked for.
                    query = replace(query, select=tuple(shown for shown in query.select if shown != ref))
                if query.combine:
                    return replace(query, where=(*query.where[:-1], condition, query.where[-1]))
                return replace(query, where=(*query.where, condition))
        return None

    # ---- join

    def _join(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.grouped:
            return self._join_key(query, walk, rng)
        if not self._is_list(query) or query.limit is not None or query.distinct or self._pinned(query):
            return None
        if self._naming.is_bridge(query.nodes[query.subject].table):
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
            for link in self._naming.links_from(node.table)
            if link.referred in walk.tables
            and not any(other.parent == index and other.columns == link.columns for other in query.nodes)
            and not (node.parent >= 0 and query.subject and index)
        ]
        rng.shuffle(links)
        for index, link in links:
            room = max(1, _MAX_COLUMNS - len(query.select))
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
            for link in self._naming.links_to(query.nodes[0].table)
            if (link.table in walk.tables or self._naming.is_bridge(link.table))
            and not self._naming.same_thing(link.table, link.columns)
            and self._catalog.table(link.table).num_rows
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
            if self._naming.is_bridge(link.table):
                other = next(part for part in self._naming.links_from(link.table) if part.columns != link.columns)
                if other.referred not in walk.tables:
                    continue
                grown = replace(
                    grown, nodes=(*grown.nodes, Node(other.referred, 0, other.columns, other.referred_columns))
                )
                shown_node = len(grown.nodes) - 1
            if rng.random() < 0.4 and not query.order:
                return replace(grown, distinct=True)
            shown = self._to_show(grown, shown_node, walk, min(2, max(1, _MAX_COLUMNS - len(query.select))), rng)
            if shown:
                return replace(grown, select=(*grown.select, *shown))
        return None

    def _to_show(self, query: Query, node: int, walk: Walk, most: int, rng: np.random.Generator) -> list[Ref]:
        """Columns of a node worth listing: its name, or what the walk has of it."""
        table = query.nodes[node].table
        keys = {column for link in self._naming.links_from(table) for column in link.columns}
        label = [Ref(node, column) for column in self._naming.label(table)]
        others = [
            ref
            for ref in self._refs(query, node, walk, rng)
            if self._profile(query, ref).role not in ("key", "empty", "text", "flag")
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
        for link in self._naming.links_from(query.nodes[key.node].table):
            if link.columns != (key.column,) or link.referred not in walk.tables:
                continue
            if any(other.columns == link.columns and other.parent == key.node for other in query.nodes):
                continue
            grown = replace(
                query, nodes=(*query.nodes, Node(link.referred, key.node, link.columns, link.referred_columns))
            )
            node = len(grown.nodes) - 1
            label = tuple(Ref(node, column) for column in self._naming.label(link.referred))
            classes = [ref for ref in self._refs(grown, node, walk, rng) if self._is_class(grown, ref)]
            if classes and (not label or rng.random() < 0.35) and not self._naming.is_bridge(grown.nodes[0].table):
                return replace(grown, select=(classes[0],))
            if not label:
                continue
            unique = len(label) == 1 and self._profile(grown, label[0]).unique
            group_key = () if unique else (Ref(node, link.referred_columns[0]),)
            return replace(grown, select=label, group_key=group_key)
        return None

    # ---- aggregate, group, having

    def _aggregate(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.cte or query.window or query.combine or query.limit is not None:
            return None
        if query.aggregates:
            return self._another_aggregate(query, walk, rng)
        if not self._is_list(query) or query.order or self._idle_join(query) or self._pinned(query):
            return None
        if any(isinstance(part, AtExtreme) for part in query.where):
            return None
        if query.subject:
            if self._naming.is_bridge(query.nodes[0].table) and not query.where:
                return None
            key = query.nodes[query.subject].referred[0]
            counted = Aggregate("count", Ref(query.subject, key), distinct=True)
            return replace(query, select=(), aggregates=(counted,), distinct=False)
        aggregate = self._some_aggregate(query, walk, rng, count=0.4)
        if aggregate is None:
            return None
        return replace(query, select=(), aggregates=(aggregate,), distinct=False)

    def _some_aggregate(self, query: Query, walk: Walk, rng: np.random.Generator, *, count: float) -> Aggregate | None:
        if rng.random() < count:
            return Aggregate("count")
        if self._naming.is_bridge(query.nodes[0].table):
            return Aggregate("count")
        equal = self._settled(query)
        for ref in self._refs(query, 0, walk, rng):
            profile = self._profile(query, ref)
            if ref in equal or ref in query.select:
                continue
            if profile.role == "measure" and not profile.statistic:
                functions: list[Function] = ["avg", "avg", "max", "min", *(["sum"] if profile.additive else [])]  # type: ignore[list-item]
                return Aggregate(functions[int(rng.integers(len(functions)))], ref)
            if profile.role in ("year", "date") and rng.random() < 0.5:
                return Aggregate("max" if rng.random() < 0.5 else "min", ref)
            if profile.role == "category" and not query.grouped and rng.random() < 0.7:
                return Aggregate("count", ref, distinct=True)
        return Aggregate("count") if count else None

    def _another_aggregate(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        first = query.aggregates[0]
        if query.subject:
            return None
        if first.ref is not None and first.function in ("avg", "min", "max") and rng.random() < 0.7:
            others: list[Function] = [name for name in ("avg", "min", "max") if name != first.function]
            if self._profile(query, first.ref).role != "measure":
                others = [name for name in others if name != "avg"]
            second = Aggregate(others[int(rng.integers(len(others)))], first.ref)
            rank = ("min", "max", "avg")
            pair = sorted([first, second], key=lambda part: rank.index(part.function))
            return replace(query, aggregates=tuple(pair))
        found = self._some_aggregate(query, walk, rng, count=0.0)
        if found is None or found.function == "count" or found in query.aggregates:
            return None
        counted = first.ref is None or first.function == "count"
        if not counted and found.ref == first.ref:
            return None
        return replace(query, aggregates=(*query.aggregates, found))

    def _is_class(self, query: Query, ref: Ref) -> bool:
        """Whether rows fall into classes by a column."""
        profile = self._profile(query, ref)
        if profile.unique or len(profile.values) < 2:
            return False
        rows = self._catalog.table(query.nodes[ref.node].table).num_rows or 0
        if profile.role in ("year", "ordinal"):
            return len(profile.values) <= 0.5 * rows
        return profile.role == "category" and len(profile.values) < rows

    def _group(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if (
            not query.aggregates
            or query.grouped
            or query.cte
            or query.subject
            or (self._naming.is_bridge(query.nodes[0].table) and len(query.nodes) > 1)
        ):
            return None
        conditioned = self._conditioned(query)
        aggregated = {part.ref for part in query.aggregates}
        keys = {
            link.columns[0]
            for link in self._naming.links_from(query.nodes[0].table)
            if len(link.columns) == 1 and link in self._naming.links_to(link.referred)
        }
        for ref in self._refs(query, 0, walk, rng):
            if ref in conditioned or ref in aggregated:
                continue
            is_key = ref.column in keys and not self._profile(query, ref).unique
            if is_key or self._is_class(query, ref):
                return replace(query, select=(ref,), grouped=True)
        return None

    def _having(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if not query.grouped or query.limit is not None or query.cte or query.window:
            return None
        aggregate = query.aggregates[int(rng.integers(len(query.aggregates)))]
        if rng.random() < 0.4:
            aggregate = Aggregate("count")
        if aggregate.ref is not None and self._profile(query, aggregate.ref).role not in ("measure", "ordinal"):
            aggregate = Aggregate("count")
        plain = replace(query, aggregates=(aggregate,), order=None, having=None)
        result = self._execute(self._writer.write(plain))
        amounts = sorted(float(row[-1]) for row in result.rows if isinstance(row[-1], int | float))
        if result.status != "ok" or len(amounts) < 2 or amounts[0] == amounts[-1]:
            return None
        having = self._literals.threshold(aggregate, amounts, rng, upwards=self._by_thing(query))
        return replace(query, having=having) if having else None

    # ---- order, limit

    def _order(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.order or query.combine or query.cte or (query.window and query.window.kind != "average"):
            return None
        if query.grouped:
            return self._order_groups(query, rng)
        if query.aggregates or self._pinned(query):
            return None
        if query.distinct:
            refs = list(query.select)
        else:
            refs = self._refs(query, query.subject, walk, rng)
        names = [ref for ref in refs if self._profile(query, ref).role == "name" and ref in query.select]
        sortable = [ref for ref in refs if self._sortable(query, ref)]
        if names and (not sortable or rng.random() < 0.15):
            return replace(query, order=Order(names[0], bool(rng.random() < 0.3)))
        if not sortable:
            return None
        descending = bool(rng.random() < 0.6) and not self._profile(query, sortable[0]).ranks
        return replace(query, order=Order(sortable[0], descending))

    def _sortable(self, query: Query, ref: Ref) -> bool:
        profile = self._profile(query, ref)
        equal = self._settled(query)
        return profile.comparable and not profile.statistic and len(profile.values) > 2 and ref not in equal

    def _by_thing(self, query: Query) -> bool:
        """Whether groups are things of another table, some of which may have no rows here."""
        key = query.select[0]
        keys = {link.columns[0] for link in self._naming.links_from(query.nodes[0].table)}
        return key.node != 0 or key.column in keys

    def _order_groups(self, query: Query, rng: np.random.Generator) -> Query | None:
        if query.window and query.window.kind == "share" and rng.random() < 0.5:
            return None
        key = query.select[0]
        by_key = len(query.select) == 1 and self._profile(query, key).role in ("category", "name", "year", "ordinal")
        if by_key and rng.random() < 0.2:
            return replace(query, order=Order(key, bool(rng.random() < 0.3)))
        # "The lowest latest year" is no order that people ask for.
        summed = [part for part in query.aggregates if part.function in ("count", "sum", "avg")]
        if not summed:
            return None
        aggregate = summed[int(rng.integers(len(summed)))]
        return replace(query, order=Order(aggregate, bool(rng.random() < 0.75)))

    def _limit(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.order is None or query.limit is not None or query.window or query.distinct:
            return None
        if isinstance(query.order.by, Ref):
            profile = self._profile(query, query.order.by)
            if profile.has_gaps or not profile.comparable or query.grouped or query.subject:
                return None
        fewest = (
            isinstance(query.order.by, Aggregate) and query.order.by.function == "count" and not query.order.descending
        )
        if fewest and query.grouped and self._by_thing(query):
            return None
        plain = replace(query, order=None)
        result = self._execute(self._writer.write(plain))
        most = len(result.rows)
        sizes = [size for size in (1, 1, 1, 2, 3, 3, 5, 10) if size < most and (size == 1 or size * 2 <= most + 1)]
        if not sizes:
            return None
        return replace(query, limit=sizes[int(rng.integers(len(sizes)))])

    # ---- nesting

    def _nesting(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.combine or query.cte or query.window or self._pinned(query):
            return None
        kinds = ["average", "linked", "same", "extreme"]
        for index in rng.permutation(len(kinds)):
            condition = self._nested(kinds[int(index)], query, walk, rng)
            if condition is not None:
                return replace(query, where=(*query.where, condition))
        return None

    def _nested(self, kind: str, query: Query, walk: Walk, rng: np.random.Generator) -> Condition | None:
        node = query.subject if rng.random() < 0.8 else int(rng.integers(len(query.nodes)))
        if self._naming.is_bridge(query.nodes[node].table):
            return None
        conditioned = self._conditioned(query)
        if query.order and isinstance(query.order.by, Ref):
            conditioned.add(query.order.by)  # "the highest rating among those below the average"
        if kind == "linked":
            return self._linked(query, node, rng)
        for ref in self._refs(query, node, walk, rng):
            profile = self._profile(query, ref)
            if ref in conditioned or (query.grouped and ref in query.select):
                continue
            averaged = profile.role == "measure" and not profile.statistic and len(profile.values) > 3
            if kind == "average" and averaged:
                return AgainstAverage("against_average", ref, bool(rng.random() < 0.6))
            ranked = profile.role in ("measure", "year", "date") and not profile.unique and not profile.statistic
            if kind == "extreme" and ranked and self._is_list(query) and not query.order:
                return AtExtreme("at_extreme", ref, bool(rng.random() < 0.6))
            if kind == "same" and (self._is_class(query, ref)):
                label = self._naming.label(query.nodes[node].table)
                if len(label) == 1 and self._profile(query, Ref(0, label[0])).unique if node == 0 else False:
                    values = self._profile(query, Ref(node, label[0])).values
                    named = values[int(rng.integers(len(values)))]
                    if str(named).strip() == named:
                        return SameAs("same_as", ref, Ref(node, label[0]), named)
        return None

    def _linked(self, query: Query, node: int, rng: np.random.Generator) -> Condition | None:
        table = query.nodes[node].table
        joined = {part.table for part in query.nodes}
        links = [
            link
            for link in self._naming.links_to(table)
            if len(link.columns) == 1
            and link.table not in joined
            and self._catalog.table(link.table).num_rows
            and not self._naming.same_thing(link.table, link.columns)
        ]
        if not links:
            return None
        link = links[int(rng.integers(len(links)))]
        nodes: tuple[Node, ...] = (Node(link.table),)
        view = 0
        negated = bool(rng.random() < 0.5)
        inner = rng.random() < 0.5
        if self._naming.is_bridge(link.table):
            other = self._other_side(link)
            if inner and other.referred != table:
                nodes = (*nodes, Node(other.referred, 0, other.columns, other.referred_columns))
                view = 1
            else:
                inner = False
        where: tuple[Simple, ...] = ()
        if inner:
            inside = Query(nodes, ())
            names = [column.name for column in self._catalog.table(nodes[view].table).columns]
            for index in rng.permutation(len(names))[:4]:
                condition = self._literals.condition(inside, Ref(view, names[int(index)]), rng, single=False)
                # "that have no pet whose type is not a dog"
                twice = negated and isinstance(condition, Compare) and condition.op == "!="
                if condition is not None and not twice:
                    where = (condition,)
                    break
            if not where:
                return None
        return Linked("linked", node, link.referred_columns, nodes, link.columns, negated, where)

    def _other_side(self, link: Link) -> Link:
        return next(part for part in self._naming.links_from(link.table) if part.columns != link.columns)

    # ---- set operations

    def _set_operation(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if not self._is_list(query) or query.order or not query.where or self._pinned(query):
            return None
        last = query.where[-1]
        if isinstance(last, AgainstAverage | AtExtreme | SameAs | Linked):
            return None
        if query.subject and not (query.distinct and self._beyond(query, last.ref.node)):
            return None
        base = replace(query, where=query.where[:-1])
        second = None
        for _ in range(3):
            other = last.ref
            if rng.random() < 0.5:
                refs = self._refs(query, last.ref.node, walk, rng)
                other = refs[0]
            if other in query.select or (other == last.ref and self._profile(query, other).role == "flag"):
                continue
            found = self._literals.condition(base, other, rng, single=True)
            if found is not None and found != last:
                second = found
                break
        if second is None:
            return None
        op = self._set_operator(query, rng)
        if op is None:
            return None
        return replace(query, combine=Combine(op, second), distinct=False)

    def _set_operator(self, query: Query, rng: np.random.Generator) -> Literal["union", "intersect", "except"] | None:
        operators: list[Literal["union", "intersect", "except"]]
        one_class = len(query.select) == 1 and self._is_class(query, query.select[0])
        if query.subject or one_class:
            operators = ["intersect", "intersect", "except", "except", "union"]
        elif any(self._profile(query, ref).unique for ref in query.select) and len(query.nodes) == 1:
            operators = ["union", "except"]
        else:
            return None
        return operators[int(rng.integers(len(operators)))]

    def _beyond(self, query: Query, node: int) -> bool:
        """Whether the subject does not lead to a node by itself."""
        while node > 0 and node != query.subject:
            node = query.nodes[node].parent
        return node != query.subject

    # ---- steps and windows

    def _cte(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.cte or query.window or query.combine or query.having:
            return None
        if query.grouped:
            if (
                query.order
                or len(query.aggregates) != 1
                or len({ref.column for ref in query.select}) < len(query.select)
            ):
                return None
            aggregate = query.aggregates[0]
            if aggregate.ref is not None and self._profile(query, aggregate.ref).role != "measure":
                return None
            additive = aggregate.ref is None or aggregate.function == "sum"
            kind: Literal["average", "above"] = "average" if additive and rng.random() < 0.5 else "above"
            if kind == "above" and aggregate.function not in ("count", "sum", "avg"):
                return None
            return replace(query, cte=Cte(kind))
        if query.order is None or query.limit is None or query.limit < 2 or not isinstance(query.order.by, Ref):
            return None
        for ref in self._refs(query, query.subject, walk, rng):
            profile = self._profile(query, ref)
            if profile.role == "measure" and not profile.statistic:
                functions: list[Function] = ["avg", "sum"] if profile.additive else ["avg"]
                if ref != query.order.by:
                    functions += ["max", "min"]
                function = functions[int(rng.integers(len(functions)))]
                return replace(query, cte=Cte("top", Aggregate(function, ref)))
        return None

    def _window(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.window or query.cte or query.combine or query.limit is not None:
            return None
        if query.grouped:
            if query.having or query.order or len(query.aggregates) != 1:
                return None
            aggregate = query.aggregates[0]
            additive = aggregate.ref is None or aggregate.function == "sum"
            return replace(query, window=Window("share")) if additive else None
        label = set(self._naming.label(query.nodes[0].table))
        named = any(ref.node == 0 and ref.column in label for ref in query.select)
        if query.aggregates or query.order or query.distinct or query.subject or not named or self._pinned(query):
            return None
        equal = self._settled(query)
        refs = [ref for ref in self._refs(query, 0, walk, rng) if ref not in equal]
        measures = [
            ref
            for ref in refs
            if self._profile(query, ref).role == "measure" and not self._profile(query, ref).has_gaps
        ]
        classes: list[Ref] = [ref for ref in refs if self._is_class(query, ref)]
        if not measures or any(isinstance(part, AtExtreme) for part in query.where):
            return None
        ref = measures[0]
        by = next((part for part in classes if part != ref), None)
        kinds: list[Literal["rank", "average", "best"]] = ["rank"]
        if by is not None:
            kinds += ["average", "best", "best"]
        kind = kinds[int(rng.integers(len(kinds)))]
        if kind == "rank" and rng.random() < 0.6:
            by = None
        descending = bool(rng.random() < 0.7)
        select = query.select
        if kind == "average" and ref not in select and len(select) < _MAX_COLUMNS:
            select = (*select, ref)
        if kind == "best":
            assert by is not None
            # Each class is listed with its best.
            select = (by, *(part for part in select if part != by))
        if len({part.column for part in select}) < len(select):
            return None
        return replace(query, select=select, window=Window(kind, ref, by, descending))


def _some(items: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Choose some items, in their own order."""
    chosen = sorted(rng.permutation(len(items))[:count])
    return [items[int(index)] for index in chosen]


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

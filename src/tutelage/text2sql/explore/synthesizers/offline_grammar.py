"""The moves of the offline grammar: each adds one operator to a tree, or finds that it cannot."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from tutelage.text2sql.explore.pair import Operator, Walk
from tutelage.text2sql.explore.synthesizers.offline_joins import Joins
from tutelage.text2sql.explore.synthesizers.offline_nesting import Nestings
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    Aggregate,
    AtExtreme,
    Compare,
    Function,
    Node,
    Order,
    Query,
    Ref,
)

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
_MAX_LISTED = 5  # that a projection lists; more reads as a description of the table
_SIZES = (0.3, 0.3, 0.2, 0.12, 0.08)  # how often it lists so many


class Grammar(Joins, Nestings):
    """Moves over the join trees of one database."""

    def _moves(self) -> dict[Operator, Callable[[Query, Walk, np.random.Generator], Query | None]]:
        return {
            "filter": self._filter,
            "join": self.join,
            "aggregate": self._aggregate,
            "group": self._group,
            "having": self._having,
            "order": self._order,
            "limit": self._limit,
            "nesting": self.nesting,
            "set_operation": self.set_operation,
            "cte": self.cte,
            "window": self.window,
        }

    def begin(self, walk: Walk, rng: np.random.Generator) -> Iterator[Query]:
        """Projections of the walk's columns, several of each table."""
        for table in walk.tables:
            if not self.catalog.table(table).num_rows:
                continue
            for _ in range(4):
                shown = [column for name, column in walk.columns if name == table and self._shown(table, column, rng)]
                if shown:
                    yield self._projection(table, shown, rng)

    def _projection(self, table: str, shown: Sequence[str], rng: np.random.Generator) -> Query:
        sizes = np.arange(1, _MAX_LISTED + 1)
        chosen = _some(shown, int(rng.choice(sizes, p=_SIZES)), rng)
        label = self.naming.label(table)
        if label and rng.random() < 0.5:
            chosen = [*label, *(column for column in chosen if column not in label)][:_MAX_LISTED]
        if self.naming.is_bridge(table):
            # One key of a pair says nothing; both do.
            chosen = [link.columns[0] for link in self.naming.links_from(table)]
        # In the table's order: the same columns in another order ask for the same.
        order = [column.name for column in self.catalog.table(table).columns]
        chosen.sort(key=lambda column: (column not in label, order.index(column)))
        profile = self.roles.of(table, chosen[0])
        distinct = len(chosen) == 1 and not profile.unique and profile.role != "key" and rng.random() < 0.6
        return Query((Node(table),), tuple(Ref(0, column) for column in chosen), distinct=distinct)

    def _shown(self, table: str, column: str, rng: np.random.Generator) -> bool:
        profile = self.roles.of(table, column)
        return profile.listed and (profile.role != "key" or rng.random() < 0.25)

    def extend(
        self, query: Query, walk: Walk, operators: Sequence[str], rng: np.random.Generator
    ) -> Iterator[tuple[Operator, Query]]:
        """Trees with one operator more, in random order; an operator may come several times."""
        moves = self._moves()
        open_moves: list[Operator] = [name for name in moves if operators.count(name) < _MOST.get(name, 1)]
        weights = np.array([_WEIGHTS[name] * 0.3 ** operators.count(name) for name in open_moves])
        for _ in range(4):
            # Weighted, without replacement: the larger the weight, the sooner its turn.
            for index in np.argsort(-(rng.random(len(open_moves)) ** (1 / weights))):
                operator = open_moves[int(index)]
                grown = moves[operator](query, walk, rng)
                if grown is not None and not self._groups_of_one(grown):
                    yield operator, grown

    def _groups_of_one(self, query: Query) -> bool:
        """Whether each group has one row: its minimum is the row's own value, and its count is one."""
        if not query.grouped:
            return False
        counted = replace(
            query, aggregates=(Aggregate("count"),), having=None, order=None, limit=None, cte=None, window=None
        )
        result = self.execute(self.writer.write(counted))
        return result.status == "ok" and all(row[-1] == 1 for row in result.rows)

    def _filter(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if self.pinned(query):
            return None
        nodes = self.entity_nodes(query)
        rng.shuffle(nodes)
        taken = self.conditioned(query) | self.tying(query) | ({*query.select} if query.grouped else set())
        taken |= {part.ref for part in query.aggregates if part.ref is not None}
        if query.order and isinstance(query.order.by, Ref):
            taken.add(query.order.by)
        if query.combine:
            taken.add(query.combine.where.ref)
        if query.window and query.window.by:
            taken.add(query.window.by)
        for node in nodes:
            if query.combine and query.subject and self.beyond(query, node):
                continue
            for ref in self.refs(query, node, walk, rng)[:4]:
                if ref in taken:
                    continue
                condition = self.literals.condition(
                    query, ref, rng, single=not self.is_list(query) or bool(query.order) or query.distinct
                )
                if condition is None:
                    continue
                exact = isinstance(condition, Compare) and condition.op == "="
                if exact and ref in query.select:
                    # What is given is not asked for.
                    shown = tuple(other for other in query.select if other != ref)
                    # Where nothing is left of the rows that lead to the subject, each of these still repeats it.
                    repeated = bool(query.subject) and not any(self.beyond(query, other.node) for other in shown)
                    if not shown or (repeated and query.order):
                        continue
                    query = replace(query, select=shown, distinct=query.distinct or repeated)
                if query.combine:
                    return replace(query, where=(*query.where[:-1], condition, query.where[-1]))
                return replace(query, where=(*query.where, condition))
        return None

    def _aggregate(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.cte or query.window or query.combine or query.limit is not None:
            return None
        if query.aggregates:
            return self._another_aggregate(query, walk, rng)
        if not self.is_list(query) or query.order or self.idle_join(query) or self.pinned(query):
            return None
        if any(isinstance(part, AtExtreme) for part in query.where):
            return None
        if query.subject:
            if self.naming.is_bridge(query.nodes[0].table) and not query.where:
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
        if self.naming.is_bridge(query.nodes[0].table):
            return Aggregate("count")
        equal = self.settled(query)
        for ref in self.refs(query, 0, walk, rng):
            profile = self.profile(query, ref)
            if ref in equal or ref in query.select or len(profile.values) < 2:
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
            if self.profile(query, first.ref).role != "measure":
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

    def _group(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if (
            not query.aggregates
            or query.grouped
            or query.cte
            or query.subject
            or (self.naming.is_bridge(query.nodes[0].table) and len(query.nodes) > 1)
        ):
            return None
        conditioned = self.conditioned(query)
        aggregated = {part.ref for part in query.aggregates}
        keys = {
            link.columns[0]
            for link in self.naming.links_from(query.nodes[0].table)
            if len(link.columns) == 1 and link in self.naming.links_to(link.referred)
        }
        for ref in self.refs(query, 0, walk, rng):
            if ref in conditioned or ref in aggregated:
                continue
            is_key = ref.column in keys and not self.profile(query, ref).unique
            if is_key or self.is_class(query, ref):
                return replace(query, select=(ref,), grouped=True)
        return None

    def _having(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if not query.grouped or query.limit is not None or query.cte or query.window:
            return None
        aggregate = query.aggregates[int(rng.integers(len(query.aggregates)))]
        if rng.random() < 0.4:
            aggregate = Aggregate("count")
        if aggregate.ref is not None and self.profile(query, aggregate.ref).role not in ("measure", "ordinal"):
            aggregate = Aggregate("count")
        plain = replace(query, aggregates=(aggregate,), order=None, having=None)
        result = self.execute(self.writer.write(plain))
        amounts = sorted(float(row[-1]) for row in result.rows if isinstance(row[-1], int | float))
        if result.status != "ok" or len(amounts) < 2 or amounts[0] == amounts[-1]:
            return None
        having = self.literals.threshold(aggregate, amounts, rng, upwards=self._by_thing(query))
        return replace(query, having=having) if having else None

    def _order(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        if query.order or query.combine or query.cte or (query.window and query.window.kind != "average"):
            return None
        if query.grouped:
            return self._order_groups(query, rng)
        if query.aggregates or self.pinned(query):
            return None
        if query.distinct:
            refs = list(query.select)
        else:
            refs = self.refs(query, query.subject, walk, rng)
        names = [ref for ref in refs if self.profile(query, ref).role == "name" and ref in query.select]
        sortable = [ref for ref in refs if self._sortable(query, ref)]
        if names and (not sortable or rng.random() < 0.15):
            return replace(query, order=Order(names[0], bool(rng.random() < 0.3)))
        if not sortable:
            return None
        descending = bool(rng.random() < 0.6) and not self.profile(query, sortable[0]).ranks
        return replace(query, order=Order(sortable[0], descending))

    def _sortable(self, query: Query, ref: Ref) -> bool:
        profile = self.profile(query, ref)
        equal = self.settled(query)
        return profile.comparable and not profile.statistic and len(profile.values) > 2 and ref not in equal

    def _by_thing(self, query: Query) -> bool:
        """Whether groups are things of another table, some of which may have no rows here."""
        key = query.select[0]
        keys = {link.columns[0] for link in self.naming.links_from(query.nodes[0].table)}
        return key.node != 0 or key.column in keys

    def _order_groups(self, query: Query, rng: np.random.Generator) -> Query | None:
        if query.window and query.window.kind == "share" and rng.random() < 0.5:
            return None
        key = query.select[0]
        by_key = len(query.select) == 1 and self.profile(query, key).role in ("category", "name", "year", "ordinal")
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
            profile = self.profile(query, query.order.by)
            if profile.has_gaps or not profile.comparable or query.grouped or query.subject:
                return None
            if query.order.by in self.conditioned(query):
                return None  # "the largest of those larger than …"
        fewest = (
            isinstance(query.order.by, Aggregate) and query.order.by.function == "count" and not query.order.descending
        )
        if fewest and query.grouped and self._by_thing(query):
            return None
        plain = replace(query, order=None)
        result = self.execute(self.writer.write(plain))
        most = len(result.rows)
        sizes = [size for size in (1, 1, 1, 2, 3, 3, 5, 10) if size < most and (size == 1 or size * 2 <= most + 1)]
        if not sizes:
            return None
        return replace(query, limit=sizes[int(rng.integers(len(sizes)))])


def _some(items: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Choose some items, in their own order."""
    chosen = sorted(rng.permutation(len(items))[:count])
    return [items[int(index)] for index in chosen]

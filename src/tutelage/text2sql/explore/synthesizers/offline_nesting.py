"""Queries upon queries: nesting, set operations, steps and windows."""

from dataclasses import replace
from typing import Literal

import numpy as np

from tutelage.text2sql.explore.facts.roles import NO
from tutelage.text2sql.explore.pair import Walk
from tutelage.text2sql.explore.synthesizers.naming import Link
from tutelage.text2sql.explore.synthesizers.offline_ground import MAX_COLUMNS, Ground
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    AgainstAverage,
    Aggregate,
    AtExtreme,
    Combine,
    Compare,
    Condition,
    Cte,
    Function,
    Linked,
    Node,
    Query,
    Ref,
    SameAs,
    Simple,
    Window,
)


class Nestings(Ground):
    """Moves that put a query upon another."""

    def nesting(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        """Compare with a query in the query."""
        if query.combine or query.cte or query.window or self.pinned(query):
            return None
        kinds = ["average", "linked", "same", "extreme"]
        for index in rng.permutation(len(kinds)):
            condition = self._nested(kinds[int(index)], query, walk, rng)
            if condition is not None:
                return replace(query, where=(*query.where, condition))
        return None

    def _nested(self, kind: str, query: Query, walk: Walk, rng: np.random.Generator) -> Condition | None:
        node = query.subject if rng.random() < 0.8 else int(rng.integers(len(query.nodes)))
        if self.naming.is_bridge(query.nodes[node].table):
            return None
        conditioned = self.conditioned(query) | self.tying(query)
        if query.order and isinstance(query.order.by, Ref):
            conditioned.add(query.order.by)  # "the highest rating among those below the average"
        if kind == "linked":
            return self._linked(query, node, rng)
        for ref in self.refs(query, node, walk, rng):
            profile = self.profile(query, ref)
            if ref in conditioned or (query.grouped and ref in query.select):
                continue
            averaged = profile.role == "measure" and not profile.statistic and len(profile.values) > 3
            if kind == "average" and averaged:
                return AgainstAverage("against_average", ref, bool(rng.random() < 0.6))
            ranked = profile.role in ("measure", "year", "date") and not profile.unique and not profile.statistic
            ranked = ranked and len(profile.values) > 1
            if kind == "extreme" and ranked and self.is_list(query) and not query.order:
                return AtExtreme("at_extreme", ref, bool(rng.random() < 0.6))
            if kind == "same" and (self.is_class(query, ref)):
                label = self.naming.label(query.nodes[node].table)
                if len(label) == 1 and self.profile(query, Ref(0, label[0])).unique if node == 0 else False:
                    values = self.profile(query, Ref(node, label[0])).values
                    named = values[int(rng.integers(len(values)))]
                    if str(named).strip() == named:
                        return SameAs("same_as", ref, Ref(node, label[0]), named)
        return None

    def _linked(self, query: Query, node: int, rng: np.random.Generator) -> Condition | None:
        table = query.nodes[node].table
        joined = {part.table for part in query.nodes}
        links = [
            link
            for link in self.naming.links_to(table)
            if len(link.columns) == 1
            and link.table not in joined
            and self.catalog.table(link.table).num_rows
            and not self.naming.same_thing(link.table, link.columns)
        ]
        if not links:
            return None
        link = links[int(rng.integers(len(links)))]
        nodes: tuple[Node, ...] = (Node(link.table),)
        view = 0
        negated = bool(rng.random() < 0.5)
        inner = rng.random() < 0.5
        if self.naming.is_bridge(link.table):
            other = self._other_side(link)
            if inner and other.referred != table:
                nodes = (*nodes, Node(other.referred, 0, other.columns, other.referred_columns))
                view = 1
            else:
                inner = False
        where: tuple[Simple, ...] = ()
        if inner:
            inside = Query(nodes, ())
            tied = link.columns if view == 0 else ()
            names = [column.name for column in self.catalog.table(nodes[view].table).columns if column.name not in tied]
            for index in rng.permutation(len(names))[:4]:
                condition = self.literals.condition(inside, Ref(view, names[int(index)]), rng, single=False)
                # "that have no pet whose type is not a dog", "that have no job that is not full time"
                twice = negated and isinstance(condition, Compare) and (condition.op == "!=" or self._denies(condition))
                if condition is not None and not twice:
                    where = (condition,)
                    break
            if not where:
                return None
        return Linked("linked", node, link.referred_columns, nodes, link.columns, negated, where)

    @staticmethod
    def _denies(condition: Compare) -> bool:
        return str(condition.value).strip().lower() in NO

    def _other_side(self, link: Link) -> Link:
        return next(part for part in self.naming.links_from(link.table) if part.columns != link.columns)

    def set_operation(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        """Take two sets of rows together."""
        if not self.is_list(query) or query.order or not query.where or self.pinned(query):
            return None
        last = query.where[-1]
        if isinstance(last, AgainstAverage | AtExtreme | SameAs | Linked) or last.ref in query.select:
            return None
        if query.subject and not (query.distinct and self.beyond(query, last.ref.node)):
            return None
        base = replace(query, where=query.where[:-1])
        if query.subject:
            # "a cat older than 3" is one thing to have, not two; and what is listed must tell the subjects apart.
            others = [part.ref.node for part in base.where if not isinstance(part, Linked)]
            if any(self.beyond(query, node) for node in others) or not self._tells_apart(query):
                return None
        second = None
        for _ in range(3):
            other = last.ref
            if rng.random() < 0.5:
                refs = self.refs(query, last.ref.node, walk, rng)
                other = refs[0]
            if (
                other in query.select
                or other in self.conditioned(base)
                or (other == last.ref and self.profile(query, other).role == "flag")
            ):
                continue
            found = self.literals.condition(base, other, rng, single=True)
            if found is not None and found != last:
                second = found
                break
        if second is None:
            return None
        op = self._set_operator(query, rng)
        # "above 5 or above 7"; but two values of a class may well meet in another.
        exact = isinstance(second, Compare) and second.op == "="
        if op is None or (second.ref == last.ref and (op == "union" or (op == "intersect" and not exact))):
            return None
        rows = query.subject == 0 and not self._lists_a_class(query)
        negated = isinstance(second, Compare) and second.op == "!="
        # "At least 5, except those above 5", "except those whose model is not …"
        if op == "except" and (negated or (rows and second.ref == last.ref)):
            return None
        return replace(query, combine=Combine(op, second), distinct=False)

    def _set_operator(self, query: Query, rng: np.random.Generator) -> Literal["union", "intersect", "except"] | None:
        operators: list[Literal["union", "intersect", "except"]]
        if query.subject or self._lists_a_class(query):
            operators = ["intersect", "intersect", "except", "except", "union"]
        elif any(self.profile(query, ref).unique for ref in query.select) and len(query.nodes) == 1:
            operators = ["union", "except"]
        else:
            return None
        return operators[int(rng.integers(len(operators)))]

    def _lists_a_class(self, query: Query) -> bool:
        """Whether a list is of classes that many rows may be in: countries, and not singers."""
        return len(query.select) == 1 and self.is_class(query, query.select[0])

    def _tells_apart(self, query: Query) -> bool:
        """Whether the columns listed name the subject's rows."""
        label = self.naming.label(query.nodes[query.subject].table)
        if any(ref.node == query.subject and self.profile(query, ref).unique for ref in query.select):
            return True
        return len(label) > 1 and set(label) <= {ref.column for ref in query.select if ref.node == query.subject}

    def cte(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        """Ask something of the result, made into a step."""
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
            if aggregate.ref is not None and self.profile(query, aggregate.ref).role != "measure":
                return None
            additive = aggregate.ref is None or aggregate.function == "sum"
            kind: Literal["average", "above"] = "average" if additive and rng.random() < 0.5 else "above"
            if kind == "above" and aggregate.function not in ("count", "sum", "avg"):
                return None
            return replace(query, cte=Cte(kind))
        if query.order is None or query.limit is None or query.limit < 2 or not isinstance(query.order.by, Ref):
            return None
        if self.idle_join(query):
            return None
        for ref in self.refs(query, query.subject, walk, rng):
            profile = self.profile(query, ref)
            if profile.role == "measure" and not profile.statistic:
                functions: list[Function] = ["avg", "sum"] if profile.additive else ["avg"]
                if ref != query.order.by:
                    functions += ["max", "min"]
                function = functions[int(rng.integers(len(functions)))]
                return replace(query, cte=Cte("top", Aggregate(function, ref)))
        return None

    def window(self, query: Query, walk: Walk, rng: np.random.Generator) -> Query | None:
        """Put ranks, averages or shares beside rows."""
        if query.window or query.cte or query.combine or query.limit is not None:
            return None
        if query.grouped:
            if query.having or query.order or len(query.aggregates) != 1:
                return None
            aggregate = query.aggregates[0]
            additive = aggregate.ref is None or aggregate.function == "sum"
            return replace(query, window=Window("share")) if additive else None
        label = set(self.naming.label(query.nodes[0].table))
        named = any(ref.node == 0 and ref.column in label for ref in query.select)
        if query.aggregates or query.order or query.distinct or query.subject or not named or self.pinned(query):
            return None
        equal = self.settled(query)
        refs = [ref for ref in self.refs(query, 0, walk, rng) if ref not in equal]
        profiles = {ref: self.profile(query, ref) for ref in refs}
        # "The highest lowest value ranked first"
        measures = [
            ref
            for ref, known in profiles.items()
            if known.role == "measure" and not known.has_gaps and not known.statistic
        ]
        classes: list[Ref] = [ref for ref in refs if self.is_class(query, ref)]
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
        if kind == "average" and ref not in select and len(select) < MAX_COLUMNS:
            select = (*select, ref)
        if kind == "best":
            assert by is not None
            # Each class is listed with its best.
            select = (by, *(part for part in select if part != by))
        if len({part.column for part in select}) < len(select):
            return None
        return replace(query, select=select, window=Window(kind, ref, by, descending))

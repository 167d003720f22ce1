"""What the moves of the offline grammar stand on: the database, and what can be seen of a tree."""

from collections.abc import Callable

import numpy as np

from tutelage.text2sql.database.catalog import Catalog
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.explore.facts.roles import Profile, Roles
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.pair import Walk
from tutelage.text2sql.explore.synthesizers.naming import Naming
from tutelage.text2sql.explore.synthesizers.offline_literals import Literals
from tutelage.text2sql.explore.synthesizers.offline_sql import SqlWriter
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    AgainstAverage,
    AtExtreme,
    Compare,
    InYear,
    Linked,
    Query,
    Ref,
    SameAs,
)

MAX_COLUMNS = 4  # that a join or a window may bring a list to


class Ground:
    """One database, and questions about trees over it."""

    def __init__(self, catalog: Catalog, *, execute: Callable[[str], Result], facts: Facts) -> None:
        self.catalog, self.execute = catalog, execute
        self.roles = Roles(catalog, execute=execute, facts=facts)
        self.naming = Naming(catalog, self.roles, facts)
        self.writer = SqlWriter(catalog, roles=self.roles)
        self.literals = Literals(roles=self.roles, writer=self.writer, execute=execute)

    def profile(self, query: Query, ref: Ref) -> Profile:
        """What is known of a column."""
        return self.roles.of(query.nodes[ref.node].table, ref.column)

    def refs(self, query: Query, node: int, walk: Walk, rng: np.random.Generator) -> list[Ref]:
        """A node's columns in random order; those of the walk come first, most of the time."""
        table = query.nodes[node].table
        names = [column.name for column in self.catalog.table(table).columns]
        walked = {column for name, column in walk.columns if name == table}
        weights = np.array([4.0 if name in walked else 1.0 for name in names])
        keys = rng.random(len(names)) ** (1 / weights)
        return [Ref(node, names[int(index)]) for index in np.argsort(-keys)]

    def entity_nodes(self, query: Query) -> list[int]:
        """The nodes whose columns may be asked about: not a mere bridge."""
        return [index for index, node in enumerate(query.nodes) if not self.naming.is_bridge(node.table)]

    @staticmethod
    def is_list(query: Query) -> bool:
        """Whether a tree only lists rows."""
        return not (query.aggregates or query.grouped or query.combine or query.cte or query.window)

    def pinned(self, query: Query) -> bool:
        """Whether a condition leaves one row: sorting or counting it asks for nothing."""
        return any(
            isinstance(part, Compare)
            and part.op == "="
            and (self.profile(query, part.ref).unique or self.profile(query, part.ref).role in ("name", "text"))
            for part in query.where
        )

    @staticmethod
    def idle_join(query: Query) -> bool:
        """Whether some node would not be spoken of without the columns listed."""
        used = {part.node if isinstance(part, Linked) else part.ref.node for part in query.where} | {0, query.subject}
        for node in tuple(used):
            while query.nodes[node].parent >= 0:
                node = query.nodes[node].parent
                used.add(node)
        return len(used) < len(query.nodes)

    @staticmethod
    def settled(query: Query) -> set[Ref]:
        """Columns of which the conditions leave one value, or nearly: nothing more is to be asked of these."""
        settling = AtExtreme | AgainstAverage | SameAs | InYear
        return {
            part.ref
            for part in query.where
            if isinstance(part, settling) or (isinstance(part, Compare) and part.op == "=")
        }

    @staticmethod
    def conditioned(query: Query) -> set[Ref]:
        """The columns that conditions are on."""
        return {part.ref for part in query.where if not isinstance(part, Linked)}

    @staticmethod
    def tying(query: Query) -> set[Ref]:
        """The keys that a join follows: "countries that have a city whose country code is …" asks for nothing."""
        return {Ref(node.parent, column) for node in query.nodes for column in node.columns}

    def is_class(self, query: Query, ref: Ref) -> bool:
        """Whether rows fall into classes by a column."""
        profile = self.profile(query, ref)
        if profile.unique or len(profile.values) < 2:
            return False
        rows = self.catalog.table(query.nodes[ref.node].table).num_rows or 0
        if profile.role in ("year", "ordinal"):
            return len(profile.values) <= 0.5 * rows
        # "For each head of state": nearly each country has its own.
        return profile.role == "category" and len(profile.values) <= 0.7 * rows

    @staticmethod
    def beyond(query: Query, node: int) -> bool:
        """Whether the subject does not lead to a node by itself."""
        while node > 0 and node != query.subject:
            node = query.nodes[node].parent
        return node != query.subject

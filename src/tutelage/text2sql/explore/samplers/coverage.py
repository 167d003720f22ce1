"""Ours: least-seen columns first. In every round of walks each column is taken first exactly once."""

import numpy as np

from tutelage.core.randomness import generator
from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.samplers.base import Sampler


class Coverage(Sampler):
    """Deals the columns of each table out, in hands of half a walk; a joined table's next columns fill the walk.

    A round has as many walks as there are hands, and its deal is shuffled by (seed, round). So which columns were
    seen least is known from the walk's id alone, and a walk does not depend on the ones before it.
    """

    name = "coverage"

    def __init__(self, *, graph: Graph, seed: int, size: int) -> None:
        super().__init__(graph=graph, seed=seed, size=size)
        self._hand = (size + 1) // 2
        sizes_T = np.diff(graph.first_T1)
        hands_T = -(-sizes_T // self._hand)
        self._table_R = np.repeat(np.arange(graph.num_tables), hands_T)  # R walks of a round
        self._part_R = np.arange(self._table_R.size) - np.repeat(np.cumsum(hands_T) - hands_T, hands_T)
        self._first_T1, far_H = graph.keys_by_table()
        self._far_tables_H = graph.table_N[far_H]

    def sample(self, ids_W: np.ndarray) -> np.ndarray:
        nodes_WS = np.full((ids_W.size, self.size), -1, dtype=np.int64)
        rounds_W, places_W = np.divmod(ids_W, self._table_R.size)
        friends_W = self.uniforms(ids_W, 0)
        for number in np.unique(rounds_W).tolist():
            random = generator(self.seed, self.name, number)
            # Shuffled within each table: sorted by table, then by a random number.
            dealt_N = np.lexsort((random.random(self.graph.num_nodes), self.graph.table_N))
            order_R = random.permutation(self._table_R.size)
            for walk in np.flatnonzero(rounds_W == number).tolist():
                columns = self._columns(dealt_N, int(order_R[places_W[walk]]), float(friends_W[walk]))
                nodes_WS[walk, : len(columns)] = columns
        return nodes_WS

    def _columns(self, dealt_N: np.ndarray, hand: int, friend: float) -> np.ndarray:
        table, part = int(self._table_R[hand]), int(self._part_R[hand])
        own = self._dealt(dealt_N, table, part, self._hand)
        keys = self._far_tables_H[self._first_T1[table] : self._first_T1[table + 1]]
        if not keys.size:
            return own
        joined = int(keys[int(friend * keys.size)])
        return np.concatenate([own, self._dealt(dealt_N, joined, part, self.size - own.size)[: self.size - own.size]])

    def _dealt(self, dealt_N: np.ndarray, table: int, part: int, count: int) -> np.ndarray:
        """Give the ``part``-th hand of a table; the friend's hands start again where the friend has fewer."""
        columns = dealt_N[self.graph.first_T1[table] : self.graph.first_T1[table + 1]]
        hands = max(1, -(-columns.size // max(count, 1)))
        first = part % hands * count
        return columns[first : first + count]

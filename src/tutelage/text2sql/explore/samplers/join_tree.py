"""Ours: connected subtrees of the key graph, and columns from each of their tables."""

# Z most tables of a tree

import numpy as np

from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.samplers.base import Sampler

_TRIES = 8  # draws for one table or column that is not there yet


class JoinTree(Sampler):
    """Grows a tree of joined tables of a random size, then takes columns from its tables in turn.

    Every tree that fits ``max_tables`` can come, so joins of several tables are as frequent as single tables.
    """

    name = "join_tree"

    def __init__(self, *, graph: Graph, seed: int, size: int, max_tables: int) -> None:
        super().__init__(graph=graph, seed=seed, size=size)
        self._max_tables = max_tables
        self._first_T1, far_H = graph.keys_by_table()
        self._far_tables_H = graph.table_N[far_H]
        self._sizes_T = np.diff(graph.first_T1)

    def sample(self, ids_W: np.ndarray) -> np.ndarray:
        tables_WZ = self._grow(ids_W)
        counts_W = (tables_WZ >= 0).sum(axis=1)
        rows = np.arange(ids_W.size)
        nodes_WS = np.full((ids_W.size, self.size), -1, dtype=np.int64)
        draw = 2 + self._max_tables * _TRIES
        for place in range(self.size):
            tables_W = tables_WZ[rows, place % counts_W]
            for _ in range(_TRIES):
                draw += 1
                drawn_W = self.graph.first_T1[tables_W] + self.choose(ids_W, draw, self._sizes_T[tables_W])
                free_W = (nodes_WS[:, place] < 0) & (nodes_WS != drawn_W[:, None]).all(axis=1)
                nodes_WS[free_W, place] = drawn_W[free_W]
        # A small table may have no column left: close the gaps.
        order = np.argsort(nodes_WS < 0, axis=1, kind="stable")
        return np.take_along_axis(nodes_WS, order, axis=1)

    def _grow(self, ids_W: np.ndarray) -> np.ndarray:
        """Grow the trees: [W, Z] tables, −1 where a tree has fewer."""
        tables_WZ = np.full((ids_W.size, self._max_tables), -1, dtype=np.int64)
        wanted_W = 1 + self.choose(ids_W, 0, self._max_tables)
        tables_WZ[:, 0] = self.choose(ids_W, 1, self.graph.num_tables)
        if not self._far_tables_H.size:
            return tables_WZ
        rows, found_W = np.arange(ids_W.size), np.ones(ids_W.size, dtype=np.int64)
        for draw in range(2, 2 + (self._max_tables - 1) * _TRIES):
            # One of all keys that leave the tree, each with the same chance.
            keys_WZ = np.where(tables_WZ >= 0, self._first_T1[tables_WZ + 1] - self._first_T1[tables_WZ], 0)
            ends_WZ = np.cumsum(keys_WZ, axis=1)
            drawn_W = self.choose(ids_W, draw, ends_WZ[:, -1])
            leaves_W = (drawn_W[:, None] >= ends_WZ).sum(axis=1).clip(max=self._max_tables - 1)
            within_W = drawn_W - ends_WZ[rows, leaves_W] + keys_WZ[rows, leaves_W]
            places_W = self._first_T1[tables_WZ[rows, leaves_W]] + within_W
            far_W = np.take(self._far_tables_H, places_W, mode="clip")
            grows_W = (found_W < wanted_W) & (ends_WZ[:, -1] > 0) & (tables_WZ != far_W[:, None]).all(axis=1)
            tables_WZ[grows_W, found_W[grows_W]] = far_W[grows_W]
            found_W += grows_W
        return tables_WZ

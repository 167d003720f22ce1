"""Ours: a random walk that hops over a foreign key now and then.

Measured on column cliques: uniform walks of 8 columns stay in one table in 0.89 of the cases at 12 columns a
table, 0.99 at 40. Hopping with probability 0.3 brings that to 0.03 and 0.07.
"""

import numpy as np

from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.samplers.random_walk import RandomWalk


class InterBoost(RandomWalk):
    """Takes, with probability ``hop``, one of the foreign keys of the whole table and goes on at its far end."""

    name = "inter_boost"

    def __init__(self, *, graph: Graph, seed: int, size: int, hop: float) -> None:
        super().__init__(graph=graph, seed=seed, size=size)
        self._hop = hop
        self._first_T1, self._far_H = graph.keys_by_table()

    def step(self, ids_W: np.ndarray, nodes_W: np.ndarray, draw: int) -> np.ndarray:
        """Hop, or step as a random walk does."""
        next_W = super().step(ids_W, nodes_W, draw)
        tables_W = self.graph.table_N[nodes_W]
        first_W = self._first_T1[tables_W]
        counts_W = self._first_T1[tables_W + 1] - first_W
        # The same draw says whether and where to: below ``hop`` it is still uniform.
        share_W = self.uniforms(ids_W, draw + 1) / self._hop if self._hop else np.ones(ids_W.size)
        hops_W = (share_W < 1) & (counts_W > 0)
        places_W = first_W[hops_W] + (share_W[hops_W] * counts_W[hops_W]).astype(np.int64)
        next_W[hops_W] = self._far_H[places_W]
        return next_W

"""The paper's empirical weighted sampling: edges by their normalised weights (DB-Explore, 2503.04959)."""

import numpy as np

from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.samplers.base import Sampler, walk_in_blocks


class EmpiricalWeighted(Sampler):
    """Follows edges as often as seed queries use their columns together, from a start chosen likewise.

    Without seeds all weights are equal, and only the start differs from ``RandomWalk``.
    """

    name = "empirical_weighted"

    def __init__(self, *, graph: Graph, seed: int, size: int) -> None:
        super().__init__(graph=graph, seed=seed, size=size)
        # One running sum over all edges: a node's share of it is the stretch between two marks.
        self._marks_E1 = np.concatenate([[0.0], np.cumsum(graph.weights_E)])

    def sample(self, ids_W: np.ndarray) -> np.ndarray:
        return walk_in_blocks(ids_W, self.start, self.step, size=self.size)

    def start(self, ids_W: np.ndarray) -> np.ndarray:
        """Start at a column by the sum of its weights; anywhere in a graph without edges."""
        if not self.graph.weights_E.size:
            return self.choose(ids_W, 0, self.graph.num_nodes)
        edges_W = self._edge(self.uniforms(ids_W, 0) * self._marks_E1[-1])
        return np.searchsorted(self.graph.starts_N1, edges_W, side="right") - 1

    def step(self, ids_W: np.ndarray, nodes_W: np.ndarray, draw: int) -> np.ndarray:
        """Follow one of a node's edges by its weight."""
        first_W, last_W = self.graph.starts_N1[nodes_W], self.graph.starts_N1[nodes_W + 1]
        low_W, high_W = self._marks_E1[first_W], self._marks_E1[last_W]
        edges_W = self._edge(low_W + self.uniforms(ids_W, draw) * (high_W - low_W))
        edges_W = np.clip(edges_W, first_W, last_W - 1)  # rounding may step over a node's end
        if not self.graph.neighbours_E.size:
            return np.full(nodes_W.size, -1)
        next_W: np.ndarray = self.graph.neighbours_E[edges_W]
        next_W[first_W == last_W] = -1
        return next_W

    def _edge(self, marks_W: np.ndarray) -> np.ndarray:
        edges_W = np.searchsorted(self._marks_E1, marks_W, side="right") - 1
        return np.minimum(edges_W, self.graph.weights_E.size - 1)

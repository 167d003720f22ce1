"""The paper's random walk: a random start, then random edges, until the preset size (DB-Explore, 2503.04959)."""

import numpy as np

from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.samplers.base import Sampler, walk_in_blocks


class RandomWalk(Sampler):
    """Follows every edge with the same probability.

    Columns of a table form a clique, so in wide tables a walk almost never leaves it: see ``InterBoost``.
    """

    name = "random_walk"

    def __init__(self, *, graph: Graph, seed: int, size: int) -> None:
        super().__init__(graph=graph, seed=seed, size=size)
        self._degrees_N = np.diff(graph.starts_N1)

    def sample(self, ids_W: np.ndarray) -> np.ndarray:
        return walk_in_blocks(ids_W, self.start, self.step, size=self.size)

    def start(self, ids_W: np.ndarray) -> np.ndarray:
        """Start anywhere."""
        return self.choose(ids_W, 0, self.graph.num_nodes)

    def step(self, ids_W: np.ndarray, nodes_W: np.ndarray, draw: int) -> np.ndarray:
        """Follow one of a node's edges."""
        degrees_W = self._degrees_N[nodes_W]
        places_W = self.graph.starts_N1[nodes_W] + self.choose(ids_W, draw, degrees_W)
        if not self.graph.neighbours_E.size:
            return np.full(nodes_W.size, -1)
        next_W: np.ndarray = np.take(self.graph.neighbours_E, places_W, mode="clip")
        next_W[degrees_W == 0] = -1  # a node without edges has no place of its own in the array
        return next_W

"""What every sampler shares: walks as a function of (seed, walk id), computed for many ids at once.

Random numbers are hashes of (seed, sampler, draw, walk id), so neither the batch nor what was sampled before can
change a walk.
"""

# W walks, S size: the columns of one walk

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from tutelage.core.randomness import seed_of
from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.pair import Walk

_BLOCK = 8192  # walks at a time: their arrays stay in the cache
_PATIENCE = 4  # steps a column; a walk that finds nothing new for so long stays shorter than asked


class Sampler(ABC):
    """Chooses columns that stand together in a query.

    A subclass names itself in ``name`` and gives :meth:`sample`. It is built with ``graph`` and ``seed`` beside its
    YAML's values.
    """

    name: ClassVar[str]

    def __init__(self, *, graph: Graph, seed: int, size: int) -> None:
        """Take what walks are made of.

        Args:
            graph: The database.
            seed: Names the walks, together with their ids.
            size: The number of columns of a walk; a small component of the graph gives fewer.
        """
        self.graph = graph
        self.seed = seed
        self.size = size
        self._keys: dict[int, np.uint64] = {}

    @abstractmethod
    def sample(self, ids_W: np.ndarray) -> np.ndarray:
        """Choose the nodes of some walks: [W, S] int64, in the order they were reached, −1 where there are fewer."""

    def walks(self, ids: Sequence[int]) -> list[Walk]:
        """Choose the columns of some walks."""
        nodes = self.graph.nodes
        ids_W = np.asarray(ids, dtype=np.int64)
        return [
            Walk(number, tuple(nodes[node] for node in row if node >= 0), self.name)
            for number, row in zip(ids, self.sample(ids_W).tolist(), strict=True)
        ]

    def uniforms(self, ids_W: np.ndarray, draw: int) -> np.ndarray:
        """Draw one number of [0, 1) for each walk, by the ``draw``-th hash of its id (SplitMix64)."""
        key = self._keys.get(draw)
        if key is None:
            key = self._keys[draw] = np.uint64(seed_of(self.seed, self.name, draw))
        x_W = ids_W.astype(np.uint64)
        x_W *= np.uint64(0x9E3779B97F4A7C15)
        x_W += key
        x_W ^= x_W >> np.uint64(30)
        x_W *= np.uint64(0xBF58476D1CE4E5B9)
        x_W ^= x_W >> np.uint64(27)
        x_W *= np.uint64(0x94D049BB133111EB)
        x_W ^= x_W >> np.uint64(31)
        x_W >>= np.uint64(11)
        return x_W * 2.0**-53

    def choose(self, ids_W: np.ndarray, draw: int, counts_W: np.ndarray | int) -> np.ndarray:
        """Draw a whole number of [0, count) for each walk; 0 where the count is 0."""
        return (self.uniforms(ids_W, draw) * counts_W).astype(np.int64)


Step = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # (ids_W, nodes_W, draw) → next nodes_W; −1: no way on


def walk_in_blocks(
    ids_W: np.ndarray, start: Callable[[np.ndarray], np.ndarray], step: Step, *, size: int
) -> np.ndarray:
    """Walk from each start until ``size`` different columns are found, or for ``4 × size`` steps.

    Args:
        ids_W: The walks.
        start: ids → the first nodes.
        step: Where a walk goes from a node. Draws are numbered from 2 × the number of the step.
        size: Different columns wanted.
    """
    nodes_WS = np.full((ids_W.size, size), -1, dtype=np.int64)
    for first in range(0, ids_W.size, _BLOCK):
        ids = ids_W[first : first + _BLOCK]
        nodes_SW = np.full((size, ids.size), -1, dtype=np.int64)  # a row a place, so that rows are compared whole
        current = nodes_SW[0] = start(ids)
        found = np.ones(ids.size, dtype=np.int64)
        active = np.arange(ids.size)  # walks that still want columns
        for number in range(1, _PATIENCE * size + 1):
            if number >= size:  # before that, all of them do
                going = (found[active] < size) & (current >= 0)
                active, ids, current = active[going], ids[going], current[going]
                if not active.size:
                    break
            current = step(ids, current, 2 * number)
            fresh = current >= 0
            for row in nodes_SW[: min(number, size)]:
                fresh &= (row if active.size == row.size else row[active]) != current
            who = active[fresh]
            nodes_SW[found[who], who] = current[fresh]
            found[who] += 1
        nodes_WS[first : first + _BLOCK] = nodes_SW.T
    return nodes_WS

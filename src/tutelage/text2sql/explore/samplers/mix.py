"""Several samplers, each with a share of the walks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.core.build import build
from tutelage.core.errors import ConfigError
from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.pair import Walk
from tutelage.text2sql.explore.samplers.base import Sampler


class Mix(Sampler):
    """Hands each walk id to one of its parts, drawn by their shares."""

    name = "mix"

    def __init__(
        self, *, graph: Graph, seed: int, size: int, shares: dict[str, float], parts: dict[str, dict[str, Any]]
    ) -> None:
        """Build the parts.

        Args:
            graph: The database.
            seed: As everywhere.
            size: Columns of a walk, for every part.
            shares: The share of each part; they need not add up to one.
            parts: The config of each part, under the name it has in ``shares``.
        """
        super().__init__(graph=graph, seed=seed, size=size)
        if unknown := sorted(shares.keys() - parts.keys()):
            raise ConfigError(
                "sampler.shares", f"no sampler {', '.join(unknown)}", f"choose from: {', '.join(sorted(parts))}"
            )
        if min(shares.values(), default=0) < 0 or not sum(shares.values()):
            raise ConfigError("sampler.shares", "no positive share", "give each sampler a share of 0 or more")
        used = sorted(name for name, share in shares.items() if share)  # sorted: the order of keys says nothing
        self._parts: list[Sampler] = [
            build(parts[name], where=f"sampler.parts.{name}", graph=graph, seed=seed, size=size) for name in used
        ]
        self._ends = np.cumsum([shares[name] for name in used])

    def sample(self, ids_W: np.ndarray) -> np.ndarray:
        nodes_WS = np.full((ids_W.size, self.size), -1, dtype=np.int64)
        parts_W = self._part(ids_W)
        for number, part in enumerate(self._parts):
            nodes_WS[parts_W == number] = part.sample(ids_W[parts_W == number])
        return nodes_WS

    def walks(self, ids: Sequence[int]) -> list[Walk]:
        """Choose the columns of some walks, each under the name of its part."""
        parts_W = self._part(np.asarray(ids, dtype=np.int64))
        walks: dict[int, Walk] = {}
        for number, part in enumerate(self._parts):
            chosen = [walk for walk, drawn in zip(ids, parts_W.tolist(), strict=True) if drawn == number]
            walks |= {walk.id: walk for walk in part.walks(chosen)}
        return [walks[walk] for walk in ids]

    def _part(self, ids_W: np.ndarray) -> np.ndarray:
        drawn_W = self.uniforms(ids_W, 0) * self._ends[-1]
        parts_W: np.ndarray = np.searchsorted(self._ends, drawn_W, side="right").clip(max=len(self._parts) - 1)
        return parts_W

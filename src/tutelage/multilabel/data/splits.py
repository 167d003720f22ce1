"""Keep part of a multi-label split out, so that rare labels are in both parts."""

# N samples, K labels, S subsets

import numpy as np
from numpy.typing import NDArray

from tutelage.core.randomness import generator

Indices = NDArray[np.int64]


def hold_out(targets_NK: NDArray[np.int8], *, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Split samples in two by iterative stratification (Sechidis et al., ECML 2011).

    The rarest label goes first: each of its samples goes to the part that still lacks most of that label, then to
    the one that lacks most samples, then by chance. Samples without labels fill up what is missing.

    Args:
        targets_NK: 1 present; 0 and −1 count as absent.
        fraction: Share of the samples to hold out, between 0 and 1.
        seed: Decides ties, and the order of samples.

    Returns:
        Indices kept and indices held out, each sorted.
    """
    assert 0 < fraction < 1
    random = generator("hold out", seed)
    has_NK = targets_NK == 1
    share_S = np.array([1 - fraction, fraction])
    wanted_SK = share_S[:, None] * has_NK.sum(axis=0)
    wanted_S = share_S * len(has_NK)
    part_N = np.full(len(has_NK), -1)
    samples = random.permutation(len(has_NK))

    while True:
        left_K = has_NK[part_N < 0].sum(axis=0)
        if not left_K.any():
            break
        label = int(np.argmin(np.where(left_K > 0, left_K, np.iinfo(left_K.dtype).max)))
        for sample in samples[(part_N[samples] < 0) & has_NK[samples, label]]:
            part = _neediest(wanted_SK[:, label], wanted_S, random)
            part_N[sample] = part
            wanted_SK[part, has_NK[sample]] -= 1
            wanted_S[part] -= 1
    for sample in samples[part_N[samples] < 0]:
        part = _neediest(wanted_S, wanted_S, random)
        part_N[sample] = part
        wanted_S[part] -= 1
    return np.flatnonzero(part_N == 0), np.flatnonzero(part_N == 1)


def _neediest(wanted_S: NDArray[np.float64], tie_S: NDArray[np.float64], random: np.random.Generator) -> int:
    for wants in (wanted_S, tie_S):
        if wants[0] != wants[1]:
            return int(np.argmax(wants))
    return int(random.integers(2))

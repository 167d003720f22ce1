"""Which prompts begin with the same tokens, so that these can be computed once."""

from collections.abc import Sequence

import numpy as np

LEAST_SHARED = 64  # tokens; to share less saves less than the bookkeeping costs


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with, the last token of each left out."""
    # Whatever the first and the last in the order of a dictionary share, those between them share as well.
    first, last = min(prompts, key=list), max(prompts, key=list)
    most = min(map(len, prompts)) - 1
    return next((n for n in range(most) if first[n] != last[n]), most)


def group_by_prefix(prompts: Sequence[np.ndarray]) -> list[tuple[list[int], int]]:
    """Group prompts that share at least LEAST_SHARED tokens, with how many they share.

    In the order of a dictionary neighbours share most. A prompt joins the group before it unless all together would
    then save less, since they share less, than without it.

    Returns:
        The prompts of each group, as indices, and how many tokens they share; 0 for a prompt by itself.
    """
    order = sorted(range(len(prompts)), key=lambda index: prompts[index].tolist())
    groups: list[tuple[list[int], int]] = []
    for number, index in enumerate(order):
        if number:
            group, shared = groups[-1]
            common = min(shared, _shared(prompts[order[number - 1]], prompts[index]))
            if common >= LEAST_SHARED and len(group) * common >= (len(group) - 1) * shared:
                groups[-1] = ([*group, index], common)
                continue
        groups.append(([index], len(prompts[index]) - 1))
    return [(group, shared if len(group) > 1 else 0) for group, shared in groups]


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """Tokens that two prompts begin with, the last token of each left out."""
    most = min(len(one), len(other)) - 1
    differ = np.flatnonzero(one[:most] != other[:most])
    return int(differ[0]) if len(differ) else most

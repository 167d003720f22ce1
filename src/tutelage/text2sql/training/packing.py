"""Samples in rows of one capacity, without padding, and what samples begin with alike in a row once.

Questions about a database begin with its schema, which is most of their tokens. A tree holds the common beginning of
some samples, its prefix, and of each sample what goes on from there, its branches. Attention (``model/attention.py``)
lets a branch see its prefix and itself, and its positions go on from the prefix, so loss and gradients are those of
the samples one by one.
"""

# B rows, T tokens

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tutelage.text2sql.prompts.prefixes import LEAST_SHARED, common_prefix, group_by_prefix

IGNORED = -100  # a target that carries no loss


class Sample(NamedTuple):
    """Token ids of a question and of its answer; only the answer carries loss."""

    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


class Tree(NamedTuple):
    """Samples with a common beginning.

    Attributes:
        prefix_ids: What all prompts begin with; empty for a sample by itself.
        branches: The rest of each sample: at least the last token of its prompt, which predicts the answer's first.
    """

    prefix_ids: Sequence[int]
    branches: tuple[Sample, ...]

    @property
    def length(self) -> int:
        """Tokens that are computed."""
        return len(self.prefix_ids) + sum(branch.length for branch in self.branches)

    @property
    def seen(self) -> int:
        """Tokens of the samples by themselves."""
        return len(self.branches) * len(self.prefix_ids) + sum(branch.length for branch in self.branches)


class TokenBatch(NamedTuple):
    """What goes through the model at once.

    Attributes:
        input_ids_BT: Packed: all trees end to end, B = 1. Padded: a sample a row.
        position_ids_BT: From 0 in each sample.
        target_BT: The next token where it belongs to an answer, else IGNORED.
        trees: Packed: of each tree the length of its prefix, then of each branch. Padded: empty.
        num_tokens: Tokens that are computed, padding not counted.
        num_seen: Tokens of the samples by themselves: a prefix counts once for each of its branches.
        answers_in_step: Answer tokens of the whole optimiser step, over all ranks and passes: the sum of losses is
            divided by it, so that each token weighs the same wherever it was computed.
    """

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    target_BT: Tensor
    trees: tuple[tuple[int, ...], ...]
    num_tokens: int
    num_seen: int
    answers_in_step: int


def grow(samples: Sequence[Sample]) -> list[Tree]:
    """Make one tree of samples that share enough tokens, else one of each."""
    shared = common_prefix([sample.prompt_ids for sample in samples])
    if len(samples) < 2 or shared < LEAST_SHARED:
        return [Tree((), (sample,)) for sample in samples]
    branches = tuple(Sample(sample.prompt_ids[shared:], sample.answer_ids) for sample in samples)
    return [Tree(samples[0].prompt_ids[:shared], branches)]


def plan_trees(
    samples: Sequence[Sample], *, branches: int, capacity: int, rng: np.random.Generator
) -> tuple[list[list[int]], int]:
    """Share out the samples of one database among trees.

    Samples are grouped by the longest common beginning of their prompts' token ids, whatever wrote these. A group is
    shuffled, so that a tree's questions are not the ones that begin alike, and cut into trees of like size.

    Args:
        samples: None longer than ``capacity``.
        branches: The most branches of a tree.
        capacity: The most tokens of a tree.
        rng: Shuffles.

    Returns:
        The samples of each tree, as indices; and how many samples stay alone since their prefix leaves no room for a
        second branch.
    """
    trees: list[list[int]] = []
    too_long = 0
    for group, shared in group_by_prefix([np.asarray(sample.prompt_ids, dtype=np.int64) for sample in samples]):
        members = [group[i] for i in rng.permutation(len(group))]
        # As many trees as are needed, of as even a number of branches as that allows.
        cap = -(-len(members) // -(-len(members) // branches))
        tree: list[int] = []
        length = shared
        found: list[list[int]] = []
        for index in members:
            own = samples[index].length - shared
            if tree and (len(tree) == cap or length + own > capacity):
                found.append(tree)
                tree, length = [], shared
            tree.append(index)
            length += own
        found.append(tree)
        if cap > 1 and all(len(tree) == 1 for tree in found):
            too_long += len(group)
        trees += found
    return trees, too_long


def interleaved(lengths: Sequence[int], kinds: Sequence[str]) -> list[int]:
    """Order items by turns of their kinds, the longest of each kind first.

    Rows that are filled in this order hold trees of many databases, and a step sees many databases.
    """
    taken: dict[str, int] = {}
    turns = {}
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        turns[index] = taken.get(kinds[index], 0)
        taken[kinds[index]] = turns[index] + 1
    return sorted(turns, key=lambda index: (turns[index], -lengths[index], index))


def first_fit_decreasing(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Put items into as few bins as first-fit-decreasing needs (at most 11/9 of the optimum, and a bit).

    Longest first; equal lengths in their given order.
    """
    return first_fit(lengths, capacity=capacity, order=sorted(range(len(lengths)), key=lambda i: -lengths[i]))


def first_fit(lengths: Sequence[int], *, capacity: int, order: Sequence[int]) -> list[list[int]]:
    """Put items into bins, each into the first that still has room.

    Args:
        lengths: Size of each item, none above ``capacity``.
        capacity: Size of a bin.
        order: All items, as they come.

    Returns:
        The items of each bin, as indices.
    """
    assert not lengths or max(lengths) <= capacity, "what does not fit is sorted out, and reported, before"
    # A tree of the most room left in each range of bins finds the first bin with room in log time.
    leaves = 1 << max(0, len(lengths) - 1).bit_length()
    room = [capacity] * (2 * leaves)
    bins: list[list[int]] = []
    for item in order:
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= lengths[item] else 2 * node + 1
        if node - leaves == len(bins):
            bins.append([])
        bins[node - leaves].append(item)
        room[node] -= lengths[item]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return bins


def pack(items: Sequence[Sample | Tree], *, answers_in_step: int) -> TokenBatch:
    """Lay trees, and samples by themselves, end to end, as one row without any padding."""
    trees = [item if isinstance(item, Tree) else Tree((), (item,)) for item in items]
    tokens: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    for tree in trees:
        shared = len(tree.prefix_ids)
        tokens += tree.prefix_ids
        positions += range(shared)
        targets += [IGNORED] * shared
        for branch in tree.branches:
            tokens += [*branch.prompt_ids, *branch.answer_ids]
            positions += range(shared, shared + branch.length)
            targets += _targets(branch)
    return TokenBatch(
        torch.tensor([tokens]),
        torch.tensor([positions]),
        torch.tensor([targets]),
        tuple((len(tree.prefix_ids), *(branch.length for branch in tree.branches)) for tree in trees),
        len(tokens),
        sum(tree.seen for tree in trees),
        answers_in_step,
    )


def pad(samples: Sequence[Sample], *, answers_in_step: int) -> TokenBatch:
    """Lay samples under each other, padded on the right to the longest."""

    def rows(values: Sequence[Sequence[int]], filler: int) -> Tensor:
        tensors = [torch.tensor(row) for row in values]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=filler)

    total = sum(sample.length for sample in samples)
    # A causal model never looks to the right, so what stands in the padding changes no sample.
    return TokenBatch(
        rows([[*sample.prompt_ids, *sample.answer_ids] for sample in samples], 0),
        rows([range(sample.length) for sample in samples], 0),
        rows([_targets(sample) for sample in samples], IGNORED),
        (),
        total,
        total,
        answers_in_step,
    )


def _targets(sample: Sample) -> list[int]:
    # The last token of the prompt predicts the answer's first; the answer's last predicts nothing.
    return [*[IGNORED] * (len(sample.prompt_ids) - 1), *sample.answer_ids, IGNORED]


def excerpt(batch: TokenBatch) -> tuple[TokenBatch, TokenBatch]:
    """Take two samples of a packed batch, packed as they were and by themselves (padded, without a prefix).

    They are the first two of the smallest tree that has a prefix; where there is none, the first two of the row.
    """
    lengths = [(number, sum(tree)) for number, tree in enumerate(batch.trees) if tree[0] and len(tree) > 2]
    chosen = min(lengths, key=lambda item: item[1])[0] if lengths else 0
    start = sum(map(sum, batch.trees[:chosen]))
    tokens, targets = batch.input_ids_BT[0].tolist(), batch.target_BT[0].tolist()
    trees: list[Tree] = []
    for prefix, *branches in batch.trees[chosen:]:
        prefix_ids, start = tokens[start : start + prefix], start + prefix
        samples = []
        for length in branches[:2]:
            answers = sum(target != IGNORED for target in targets[start : start + length])
            end = start + length
            samples.append(Sample(tokens[start : end - answers], tokens[end - answers : end]))
            start = end
        trees.append(Tree(prefix_ids, tuple(samples)))
        start += sum(branches[2:])
        if sum(len(tree.branches) for tree in trees) >= 2:
            break
    alone = [
        Sample([*tree.prefix_ids, *branch.prompt_ids], branch.answer_ids) for tree in trees for branch in tree.branches
    ]
    return pack(trees, answers_in_step=1), pad(alone, answers_in_step=1)

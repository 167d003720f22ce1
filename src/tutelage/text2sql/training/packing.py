"""Samples of different lengths in rows of one capacity, without padding and without a word from one to the next."""

# B rows, T tokens, S samples

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100  # a target that carries no loss


class Sample(NamedTuple):
    """Token ids of a question and of its answer; only the answer carries loss."""

    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


class TokenBatch(NamedTuple):
    """What a step trains on.

    Attributes:
        input_ids_BT: Packed: all samples end to end, B = 1. Padded: a sample a row.
        position_ids_BT: From 0 in each sample.
        target_BT: The next token where it belongs to an answer, else IGNORED.
        lengths_S: Packed: tokens of each sample in order, int32 on the CPU. Padded: empty.
        num_tokens: Tokens of samples, padding not counted.
        answers_in_step: Answer tokens of the whole optimiser step, over all ranks and accumulated batches: the
            sum of losses is divided by it, so that each token weighs the same wherever it was computed.
    """

    input_ids_BT: Tensor
    position_ids_BT: Tensor
    target_BT: Tensor
    lengths_S: tuple[int, ...]
    num_tokens: int
    answers_in_step: int


def first_fit_decreasing(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Put items into as few bins as first-fit-decreasing needs (at most 11/9 of the optimum, and a bit).

    Longest first, each into the first bin that still has room; equal lengths in their given order.

    Args:
        lengths: Size of each item, none above ``capacity``.
        capacity: Size of a bin.

    Returns:
        The items of each bin, as indices.
    """
    assert not lengths or max(lengths) <= capacity, "what does not fit is sorted out, and reported, before"
    # A tree of the most room left in each range of bins finds the first bin with room in log time.
    leaves = 1 << max(0, len(lengths) - 1).bit_length()
    room = [capacity] * (2 * leaves)
    bins: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
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


def pack(samples: Sequence[Sample], *, answers_in_step: int) -> TokenBatch:
    """Lay samples end to end, as one row without any padding."""
    tokens, positions, targets = zip(*(_rows(sample) for sample in samples), strict=True)
    lengths = tuple(sample.length for sample in samples)
    return TokenBatch(
        torch.cat(tokens)[None],
        torch.cat(positions)[None],
        torch.cat(targets)[None],
        lengths,
        sum(lengths),
        answers_in_step,
    )


def pad(samples: Sequence[Sample], *, answers_in_step: int) -> TokenBatch:
    """Lay samples under each other, padded on the right to the longest."""
    tokens, positions, targets = zip(*(_rows(sample) for sample in samples), strict=True)

    def rows(values: Sequence[Tensor], filler: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True, padding_value=filler)

    # A causal model never looks to the right, so what stands in the padding changes no sample.
    return TokenBatch(
        rows(tokens, 0), rows(positions, 0), rows(targets, IGNORED), (), sum(s.length for s in samples), answers_in_step
    )


def _rows(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.tensor([*sample.prompt_ids, *sample.answer_ids])
    target = torch.full_like(tokens, IGNORED)
    # The last token of the prompt predicts the answer's first; the answer's last predicts nothing.
    target[len(sample.prompt_ids) - 1 : -1] = tokens[len(sample.prompt_ids) :]
    return tokens, torch.arange(len(tokens)), target

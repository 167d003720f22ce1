"""What of a teacher's output is recorded, as arrays of units, and the same output made of them again.

A unit is what one sample has of a field, or, where only the labels of an image are looked at, the map of one of them.
"""

# B batch, N samples, K labels, L chosen labels, P positives of an image (filled up with -1), U units, H W map

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.multilabel.networks.output import ChosenMaps, Field, NetOutput
from tutelage.multilabel.replay.codec import Codec, Dtype, codec
from tutelage.multilabel.replay.shards import Integers, Layout, ranges

POSITIVE_CAMS, POSITIVE_GRAD_CAMS = "positive_cams", "positive_grad_cams"
_POSITIVE = (POSITIVE_CAMS, POSITIVE_GRAD_CAMS)
_MAPS: frozenset[Field] = frozenset({"cams_BKHW", "label_cams", "grad_cams"})
_STAGE, _FEATURE = "stages.", "features."


@dataclass(frozen=True, slots=True)
class TeacherReads:
    """What methods read of one teacher.

    Attributes:
        fields: Of its output.
        positives_only: Of maps, those of the labels that an image has; others may be anything.
    """

    fields: frozenset[Field]
    positives_only: bool

    @property
    def unstorable(self) -> frozenset[Field]:
        """What cannot be recorded: maps made on demand, of labels that nobody knows before."""
        if self.positives_only:
            return frozenset()
        made: set[Field] = {"grad_cams"} if "cams_BKHW" in self.fields else {"grad_cams", "label_cams"}
        return self.fields & made


def combine_reads(terms: Iterable[tuple[frozenset[Field], bool]]) -> TeacherReads:
    """Put together what several methods read: their ``teacher_reads`` and ``positives_only``."""
    listed = list(terms)
    reads = frozenset[Field]().union(*(each for each, _ in listed))
    return TeacherReads(reads, positives_only=all(only for each, only in listed if each & _MAPS))


class Positives:
    """Which labels each training sample has, in ascending order."""

    def __init__(self, targets_NK: NDArray[np.int8]) -> None:
        samples, self._labels = np.nonzero(targets_NK == 1)
        self.starts: Integers = np.searchsorted(samples, np.arange(len(targets_NK) + 1))

    def counts(self, samples_B: Integers) -> Integers:
        counts: Integers = self.starts[samples_B + 1] - self.starts[samples_B]
        return counts

    def of(self, samples_B: Integers) -> Tensor:
        """Return the samples' labels, int64 [B, P], P at least 1."""
        counts_B = self.counts(samples_B)
        labels_BP = np.full((len(samples_B), max(1, int(counts_B.max(initial=0)))), -1)
        filled_BP = np.arange(labels_BP.shape[1]) < counts_B[:, None]
        labels_BP[filled_BP] = self._labels[ranges(self.starts[samples_B], counts_B)]
        return torch.from_numpy(labels_BP)


def units_of(output: NetOutput, teacher_reads: TeacherReads, positives_BP: Tensor) -> dict[str, Tensor]:
    """Take what is recorded out of a live output: by name, units [U, …] in the batch's order."""
    units = {"logits_BK": output.logits_BK}
    if teacher_reads.positives_only:
        if teacher_reads.fields & {"cams_BKHW", "label_cams"}:
            units[POSITIVE_CAMS] = _chosen(output.chosen_cams, positives_BP)
        if "grad_cams" in teacher_reads.fields:
            assert output.grad_cams is not None
            units[POSITIVE_GRAD_CAMS] = _chosen(output.grad_cams, positives_BP)
    others = {
        "cams_BKHW": None if teacher_reads.positives_only else output.cams_BKHW,
        "embedding_BC": output.embedding_BC,
        "feature_map_BCHW": output.feature_map_BCHW,
        "label_embeddings_BKD": output.label_embeddings_BKD,
    }
    units |= {name: value for name, value in others.items() if value is not None and name in teacher_reads.fields}
    if "stages" in teacher_reads.fields:
        units |= {f"{_STAGE}{number}": stage for number, stage in enumerate(output.stages)}
    if "features" in teacher_reads.fields:
        units |= {f"{_FEATURE}{name}": value for name, value in output.features.items()}
    return {name: value.detach() for name, value in units.items()}


def output_of(units: Mapping[str, Tensor], teacher_reads: TeacherReads, positives_BP: Tensor) -> NetOutput:
    """Make the output again of what :func:`units_of` took out of it."""
    output = NetOutput(units["logits_BK"])
    for name, value in units.items():
        match name:
            case "cams_BKHW":
                output.cams_BKHW = value
            case "embedding_BC":
                output.embedding_BC = value
            case "feature_map_BCHW":
                output.feature_map_BCHW = value
            case "label_embeddings_BKD":
                output.label_embeddings_BKD = value
            case "positive_cams":
                output.label_cams = _maps_of_positives(value, positives_BP)
            case "positive_grad_cams":
                output.grad_cams = _maps_of_positives(value, positives_BP)
            case _ if name.startswith(_FEATURE):
                output.features[name.removeprefix(_FEATURE)] = value
    num_stages = sum(name.startswith(_STAGE) for name in units)
    output.stages = tuple(units[f"{_STAGE}{number}"] for number in range(num_stages))
    if "cams_BKHW" in teacher_reads.fields and output.label_cams is not None:
        all_BK = torch.arange(output.logits_BK.shape[1], device=positives_BP.device).expand(output.logits_BK.shape)
        output.cams_BKHW = output.label_cams(all_BK)
    return output


@dataclass(frozen=True, slots=True, eq=False)
class RecordedField:
    """One field as it is kept.

    Attributes:
        name: As :func:`units_of` has it.
        codec: How a unit is kept.
        layout: Where.
        channels_last: The teacher shows it in that memory layout, whose sums go in another order.
    """

    name: str
    codec: Codec
    layout: Layout
    channels_last: bool

    def decode(self, kept: Tensor) -> Tensor:
        """Return the units [U, …] in float32, laid out as the teacher lays them out."""
        values = self.codec.decode(kept)
        return values.contiguous(memory_format=torch.channels_last) if self.channels_last else values


def recorded_fields(units: Mapping[str, Tensor], positives: Positives, *, dtype: Dtype) -> dict[str, RecordedField]:
    """Return how fields are kept, from the units of any batch."""
    each_once = np.arange(len(positives.starts))
    fields = {}
    for name, values in units.items():
        positive = name in _POSITIVE
        kept = codec(values.shape[1:], dtype=dtype, is_map=positive or name == "cams_BKHW")
        fields[name] = RecordedField(
            name=name,
            codec=kept,
            layout=Layout(kept.unit_bytes, positives.starts if positive else each_once),
            channels_last=values.ndim == 4
            and values.is_contiguous(memory_format=torch.channels_last)
            and not values.is_contiguous(),
        )
    return fields


def _chosen(maps: ChosenMaps, positives_BP: Tensor) -> Tensor:
    """Make the maps of the labels that images have, [U, H, W]."""
    maps_BPHW = maps(positives_BP.clamp(min=0))
    return maps_BPHW[positives_BP >= 0]


def _maps_of_positives(maps_UHW: Tensor, positives_BP: Tensor) -> ChosenMaps:
    """Return the function from labels to their maps; those of labels that an image does not have are 0."""
    counts_B = (positives_BP >= 0).sum(1)
    first_B1 = (counts_B.cumsum(0) - counts_B)[:, None]
    with_zeros = torch.cat([maps_UHW, maps_UHW.new_zeros(1, *maps_UHW.shape[1:])])

    def maps(labels_BL: Tensor) -> Tensor:
        same_BLP = labels_BL[:, :, None] == positives_BP[:, None, :]
        unit_BL = torch.where(same_BLP.any(2), first_B1 + same_BLP.to(torch.uint8).argmax(2), len(maps_UHW))
        return with_zeros[unit_BL]

    return maps

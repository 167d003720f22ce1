"""From a teacher's output to units and back: the same fields, and the maps of present labels alone where they do."""

# B batch, K labels, L chosen labels, H W map

import numpy as np
import pytest
import torch

from tutelage.multilabel.networks.output import Field, NetOutput
from tutelage.multilabel.replay.fields import (
    Positives,
    TeacherReads,
    combine_reads,
    output_of,
    recorded_fields,
    units_of,
)

TARGETS_NK = np.array([[1, 0, 1], [0, 0, 0], [-1, 1, 0], [1, 1, 1]], dtype=np.int8)
SAMPLES_B = np.array([3, 1, 0])


def everything() -> NetOutput:
    random = torch.Generator().manual_seed(0)
    cams_BKHW = torch.randn(3, 3, 2, 2, generator=random)
    return NetOutput(
        torch.randn(3, 3, generator=random),
        cams_BKHW=cams_BKHW,
        grad_cams=lambda labels_BL: 2 * cams_BKHW[torch.arange(3)[:, None], labels_BL],
        stages=(torch.randn(3, 4, 4, 4, generator=random), torch.randn(3, 5, 2, 2, generator=random)),
        features={"layer1.0.act": torch.randn(3, 7, generator=random), "blocks.2": torch.randn(3, 2, generator=random)},
        feature_map_BCHW=torch.randn(3, 5, 2, 2, generator=random),
        embedding_BC=torch.randn(3, 5, generator=random),
        label_embeddings_BKD=torch.randn(3, 3, 6, generator=random),
    )


def there_and_back(output: NetOutput, teacher_reads: TeacherReads) -> tuple[set[str], NetOutput]:
    positives = Positives(TARGETS_NK)
    positives_BP = positives.of(SAMPLES_B)
    units = units_of(output, teacher_reads, positives_BP)
    kept = {}
    for name, field in recorded_fields(units, positives, dtype="float32").items():
        encoded = field.codec.encode(units[name])
        assert encoded.shape == (field.layout.counts(SAMPLES_B).sum(), field.layout.unit_bytes)
        kept[name] = field.codec.decode(encoded)
    return set(units), output_of(kept, teacher_reads, positives_BP)


def test_positives_are_those_of_the_targets() -> None:
    positives = Positives(TARGETS_NK)
    assert positives.of(SAMPLES_B).tolist() == [[0, 1, 2], [-1, -1, -1], [0, 2, -1]]
    assert positives.of(np.array([1])).tolist() == [[-1]]
    assert positives.counts(SAMPLES_B).tolist() == [3, 0, 2]


@pytest.mark.parametrize(
    "reads",
    [
        {"logits_BK"}, {"logits_BK", "cams_BKHW"}, {"stages"}, {"features", "stages", "embedding_BC"},
        {"feature_map_BCHW"}, {"label_embeddings_BKD", "cams_BKHW", "feature_map_BCHW"},
    ],
)  # fmt: skip
def test_what_is_read_comes_back_and_nothing_else(reads: set[Field]) -> None:
    live = everything()
    names, found = there_and_back(live, TeacherReads(frozenset(reads), positives_only=False))
    assert torch.equal(found.logits_BK, live.logits_BK)
    for name in ("cams_BKHW", "feature_map_BCHW", "embedding_BC", "label_embeddings_BKD"):
        value = getattr(found, name)
        assert torch.equal(value, getattr(live, name)) if name in reads else value is None
    if "stages" in reads:
        assert all(torch.equal(a, b) for a, b in zip(found.stages, live.stages, strict=True))
    assert set(found.features) == (set(live.features) if "features" in reads else set())
    assert all(torch.equal(value, live.features[name]) for name, value in found.features.items())
    assert names >= reads - {"stages", "features"}


def test_maps_of_present_labels_are_kept_alone_where_no_others_count() -> None:
    live = everything()
    teacher_reads = TeacherReads(frozenset({"cams_BKHW", "grad_cams"}), positives_only=True)
    names, found = there_and_back(live, teacher_reads)
    assert names >= {"positive_cams", "positive_grad_cams"} and "cams_BKHW" not in names
    present_BK = torch.from_numpy(TARGETS_NK[SAMPLES_B] == 1)[:, :, None, None]
    assert live.cams_BKHW is not None and found.cams_BKHW is not None and found.grad_cams is not None
    assert torch.equal(found.cams_BKHW, torch.where(present_BK, live.cams_BKHW, 0))
    labels_BL = torch.tensor([[2, 0], [1, 1], [2, 1]])  # fillers among them
    expected_BLHW = torch.where(present_BK, live.cams_BKHW, 0)[torch.arange(3)[:, None], labels_BL]
    assert torch.equal(found.chosen_cams(labels_BL), expected_BLHW)
    assert torch.equal(found.grad_cams(labels_BL), 2 * expected_BLHW)


def test_methods_together_look_at_what_any_of_them_does() -> None:
    logits = (frozenset[Field]({"logits_BK"}), False)
    positives = (frozenset[Field]({"logits_BK", "label_cams"}), True)
    all_maps = (frozenset[Field]({"cams_BKHW"}), False)
    assert combine_reads([logits, positives]) == TeacherReads(
        frozenset({"logits_BK", "label_cams"}), positives_only=True
    )
    assert (
        not combine_reads([positives, all_maps]).positives_only and not combine_reads([positives, all_maps]).unstorable
    )
    # The teacher's own top labels: who knows them before?
    assert combine_reads([(positives[0], False)]).unstorable == {"label_cams"}
    assert combine_reads([(frozenset({"grad_cams"}), False), all_maps]).unstorable == {"grad_cams"}

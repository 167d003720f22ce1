"""Heads on hand-made features: logits, maps, and what their maps promise."""

# B batch, K labels, C channels, H W map

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks.heads import Csra, FeatureDims, Gmp, Head, Linear, Lse, MlDecoder, Mlp
from tutelage.multilabel.networks.output import Field

READS: frozenset[Field] = frozenset({"cams_BKHW", "label_embeddings_BKD"})
LABELS = 5
CHANNELS = 8
DECODER = {"channels": 16, "attention_heads": 4, "feedforward": 32, "dropout": 0.1}


class MapFeatures:
    """The features of a backbone that pools by a mean."""

    def __init__(self, map_BCHW: Tensor) -> None:
        self.map_BCHW = map_BCHW

    def pooled(self) -> Tensor:
        return self.map_BCHW.mean((2, 3))

    def spatial_features(self) -> Tensor:
        return self.map_BCHW

    def feature_map(self) -> Tensor:
        return self.map_BCHW


def make(kind: type[Head], **settings: Any) -> Head:
    torch.manual_seed(0)
    return kind(dims=FeatureDims(CHANNELS, CHANNELS), num_labels=LABELS, **settings).eval()


def heads() -> list[Head]:
    return [
        make(Linear),
        make(Gmp),
        make(Lse, sharpness=5.0),
        make(Csra, heads=1, weight=0.1),
        make(Csra, heads=4, weight=0.5),
        make(Mlp, hidden=12),
        make(MlDecoder, groups=None, **DECODER),
        make(MlDecoder, groups=2, **DECODER),
    ]


def features() -> MapFeatures:
    return MapFeatures(torch.randn(3, CHANNELS, 4, 6, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("head", heads(), ids=lambda head: type(head).__name__)
def test_shapes_and_only_what_is_read(head: Head) -> None:
    shown = head(features(), reads=READS)
    assert shown.logits_BK.shape == (3, LABELS)
    assert shown.cams_BKHW.shape == (3, LABELS, 4, 6)
    if head.label_embedding_dim is None:
        assert shown.label_embeddings_BKD is None
    else:
        assert shown.label_embeddings_BKD.shape == (3, LABELS, head.label_embedding_dim)
    unread = head(features(), reads=frozenset())
    assert unread.cams_BKHW is None and unread.label_embeddings_BKD is None
    # Attention that shows its weights takes another kernel: equal to rounding.
    torch.testing.assert_close(unread.logits_BK, shown.logits_BK)


@pytest.mark.parametrize("head", heads(), ids=lambda head: type(head).__name__)
def test_gradients_of_maps_reach_every_parameter_and_the_features(head: Head) -> None:
    seen = features()
    seen.map_BCHW.requires_grad_()
    shown = head(seen, reads=READS)
    (shown.cams_BKHW.square().mean() + shown.logits_BK.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert seen.map_BCHW.grad is not None and (seen.map_BCHW.grad != 0).any()


@pytest.mark.parametrize("head", heads(), ids=lambda head: type(head).__name__)
def test_half_precision_agrees(head: Head) -> None:
    if isinstance(head, Csra) and math.inf in head.temperatures:
        pytest.skip("rounding may move a maximum to another location, and with it the peak of the map")
    shown = head(features(), reads=READS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(features(), reads=READS)
    torch.testing.assert_close(half.logits_BK.float(), shown.logits_BK, rtol=0.05, atol=0.05)
    torch.testing.assert_close(half.cams_BKHW.float(), shown.cams_BKHW, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("head", heads(), ids=lambda head: type(head).__name__)
def test_the_bias_is_added_at_last(head: Head) -> None:
    bias_K = head.bias()
    assert (bias_K is None) == isinstance(head, Csra)
    if bias_K is not None:
        before = head(features(), reads=READS)
        shift_K = torch.arange(LABELS) / 2
        with torch.no_grad():
            bias_K += shift_K
        after = head(features(), reads=READS)
        torch.testing.assert_close(after.logits_BK, before.logits_BK + shift_K)
        torch.testing.assert_close(after.cams_BKHW, before.cams_BKHW)


def test_linear_by_hand() -> None:
    head = Linear(dims=FeatureDims(2, 2), num_labels=1)
    with torch.no_grad():
        head.classifier.weight.copy_(torch.tensor([[1.0, -2.0]]))
        head.classifier.bias.fill_(0.5)
    shown = head(MapFeatures(torch.tensor([[[[1.0, 3.0]], [[0.0, 1.0]]]])), reads=READS)
    assert shown.cams_BKHW.tolist() == [[[[1.0, 1.0]]]]  # 1 − 0, 3 − 2
    assert shown.logits_BK.tolist() == [[1.5]]


def test_linear_map_averages_to_the_logit() -> None:
    head = make(Linear)
    shown = head(features(), reads=READS)
    torch.testing.assert_close(shown.cams_BKHW.mean((2, 3)) + head.classifier.bias, shown.logits_BK)


def test_gmp_map_peaks_at_the_logit() -> None:
    head = make(Gmp)
    shown = head(features(), reads=READS)
    torch.testing.assert_close(shown.cams_BKHW.amax((2, 3)) + head.classifier.bias, shown.logits_BK)


def test_lse_pools_its_map() -> None:
    head = make(Lse, sharpness=5.0)
    shown = head(features(), reads=READS)
    expected_BK = torch.log(torch.exp(5 * shown.cams_BKHW).mean((2, 3))) / 5 + head.classifier.bias
    torch.testing.assert_close(shown.logits_BK, expected_BK)


def test_lse_lies_between_mean_and_maximum() -> None:
    for sharpness, pool in ((1e-3, "mean"), (1e3, "max")):
        head = make(Lse, sharpness=sharpness)
        shown = head(features(), reads=READS)
        cams_BKHW = shown.cams_BKHW
        limit_BK = cams_BKHW.mean((2, 3)) if pool == "mean" else cams_BKHW.amax((2, 3))
        torch.testing.assert_close(shown.logits_BK - head.classifier.bias, limit_BK, atol=5e-3, rtol=0)


@pytest.mark.parametrize("heads", [1, 2, 4, 6, 8])
def test_csra_is_the_published_code(heads: int) -> None:
    head = make(Csra, heads=heads, weight=0.3)
    seen = features()
    expected_BK = torch.zeros(3, LABELS)
    for index, temperature in enumerate(Csra.TEMPERATURES[heads]):
        weight_KC = head.classifier.weight[index * LABELS : (index + 1) * LABELS]
        score = functional.conv2d(seen.map_BCHW, weight_KC[:, :, None, None]) / weight_KC.norm(dim=1)[:, None, None]
        score = score.flatten(2)
        if math.isinf(temperature):
            attended = score.max(dim=2).values
        else:
            attended = (score * torch.softmax(score * temperature, dim=2)).sum(2)
        expected_BK = expected_BK + score.mean(2) + 0.3 * attended
    shown = head(seen, reads=READS)
    torch.testing.assert_close(shown.logits_BK, expected_BK)
    torch.testing.assert_close(shown.cams_BKHW.mean((2, 3)), shown.logits_BK)


def test_mlp_map_is_exact_where_all_locations_are_alike() -> None:
    head = make(Mlp, hidden=12)
    alike = MapFeatures(torch.randn(3, CHANNELS, 1, 1, generator=torch.Generator().manual_seed(2)).expand(-1, -1, 4, 6))
    shown = head(alike, reads=READS)
    torch.testing.assert_close(shown.cams_BKHW.mean((2, 3)) + head.classifier.bias, shown.logits_BK)


@pytest.mark.parametrize("groups", [None, 1, 2, 3, LABELS])
def test_ml_decoder_maps_spread_the_logit(groups: int | None) -> None:
    head = make(MlDecoder, groups=groups, **DECODER)
    shown = head(features(), reads=READS)
    torch.testing.assert_close(shown.cams_BKHW.mean((2, 3)) + head.bias_K, shown.logits_BK)
    assert (head.label_embedding_dim is None) == (groups not in (None, LABELS))


def test_ml_decoder_embeddings_make_the_logits() -> None:
    head = make(MlDecoder, groups=None, **DECODER)
    shown = head(features(), reads=READS)
    expected_BK = (shown.label_embeddings_BKD * head.weight_GDL[:, :, 0]).sum(2) + head.bias_K
    torch.testing.assert_close(shown.logits_BK, expected_BK)


def test_ml_decoder_shares_groups_in_order() -> None:
    # Five labels in two groups: labels 0, 1, 2 of the first, 3, 4 of the second.
    head = make(MlDecoder, groups=2, **DECODER)
    before = head(features(), reads=READS).logits_BK
    with torch.no_grad():
        head.weight_GDL[1] += 1
    changed = (head(features(), reads=READS).logits_BK != before).any(0)
    assert changed.tolist() == [False, False, False, True, True]


def test_permuting_labels_permutes_nothing_else() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    for kind, settings in ((Linear, {}), (Gmp, {}), (Lse, {"sharpness": 5.0}), (Csra, {"heads": 1, "weight": 0.1})):
        head = make(kind, **settings)
        before = head(features(), reads=READS)
        with torch.no_grad():
            head.classifier.weight.copy_(head.classifier.weight[order].clone())
            if head.classifier.bias is not None:
                head.classifier.bias.copy_(head.classifier.bias[order].clone())
        after = head(features(), reads=READS)
        torch.testing.assert_close(after.logits_BK, before.logits_BK[:, order])
        torch.testing.assert_close(after.cams_BKHW, before.cams_BKHW[:, order])


@pytest.mark.parametrize(
    ("kind", "settings", "key"),
    [
        (Lse, {"sharpness": 0.0}, "sharpness"),
        (Csra, {"heads": 3, "weight": 0.1}, "heads"),
        (MlDecoder, {"groups": LABELS + 1, **DECODER}, "groups"),
        (MlDecoder, {"groups": 0, **DECODER}, "groups"),
        (MlDecoder, {"groups": None, **DECODER, "attention_heads": 3}, "attention_heads"),
    ],
)
def test_impossible_settings_are_refused(kind: type[Head], settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"head.{key}"):
        make(kind, **settings)

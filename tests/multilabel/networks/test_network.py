"""Whole networks: every family laid out alike, each seeing its own resolution and normalisation."""

# B batch, K labels, C channels, H W map

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network
from tutelage.multilabel.networks.output import Field, NetOutput

LABELS = 4
CAMS: frozenset[Field] = frozenset({"cams_BKHW"})
ALL: frozenset[Field] = frozenset({"cams_BKHW", "stages", "embedding_BC", "label_embeddings_BKD"})
LINEAR = {"_target_": "tutelage.multilabel.networks.heads.Linear"}

# family: a small member, the grid and embedding at 64 pixels, and whether the mean of its maps is the logits
FAMILIES = {
    "resnet10t": ((2, 2), 512, True),
    "wide_resnet50_2": ((2, 2), 2048, True),
    "mobilenetv2_035": ((2, 2), 1280, True),
    "mobilenetv3_small_050": ((2, 2), 1024, False),
    "efficientnet_b0": ((2, 2), 1280, True),
    "tf_efficientnet_lite0": ((2, 2), 1280, True),
    "repvgg_a0": ((2, 2), 1280, True),
    "convnext_atto": ((2, 2), 320, False),
    "swin_tiny_patch4_window7_224": ((2, 2), 768, True),
    "vit_tiny_patch16_224": ((4, 4), 192, False),
    "deit_tiny_distilled_patch16_224": ((4, 4), 192, False),
    "tresnet_m": ((2, 2), 2048, True),
    "mobilenetv4_conv_small_050": ((2, 2), 1280, None),  # a batch norm after pooling: Grad-CAM
    "mixer_s32_224": ((2, 2), 512, True),
}


def make(name: str = "resnet10t", *, head: dict[str, Any] = LINEAR, resolution: int = 64, **changes: Any) -> Network:
    torch.manual_seed(0)
    spec = NetworkSpec(**({"name": name, "weights": "none"} | changes))
    network = build_network(spec, num_labels=LABELS, head=head, resolution=resolution, where="model.student").eval()
    with torch.no_grad():  # an untrained network hardly varies over an image
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(0.1)
    return network


def images(side: int = 64) -> Tensor:
    return torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@torch.no_grad()
def look(network: Network, pixels: Tensor, reads: frozenset[Field] = frozenset()) -> NetOutput:
    shown: NetOutput = network(pixels, reads=reads)
    return shown


def test_a_new_head_starts_at_the_labels_shares() -> None:
    share_K = torch.linspace(0.01, 0.6, LABELS)
    network = make()
    with torch.no_grad():
        network.head.classifier.weight.zero_()
    network.init_head_bias(share_K)
    torch.testing.assert_close(look(network, images()).logits_BK.sigmoid(), share_K.expand(2, -1))
    without_bias = make(head={"_target_": "tutelage.multilabel.networks.heads.Csra", "heads": 1, "weight": 0.1})
    before = look(without_bias, images()).logits_BK
    without_bias.init_head_bias(share_K)
    assert torch.equal(look(without_bias, images()).logits_BK, before)


def test_frozen_batch_norms_keep_their_statistics() -> None:
    network = make(frozen="batch_norm").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(images()).logits_BK.sum().backward()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    # All else is trained, the norms' scales and shifts too.
    assert all(parameter.grad is not None for parameter in network.parameters())
    free = make().train()
    free(images())
    assert any(not torch.equal(before[name], value) for name, value in free.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_laid_out_alike(name: str) -> None:
    grid, embedding_dim, exact = FAMILIES[name]
    network = make(name)
    shown = look(network, images(), ALL)
    assert shown.logits_BK.shape == (2, LABELS)
    assert shown.cams_BKHW.shape == (2, LABELS, *grid) and network.shape.grid == grid
    assert shown.embedding_BC.shape == (2, embedding_dim) and network.shape.embedding_dim == embedding_dim
    assert tuple(stage.shape[1] for stage in shown.stages) == network.shape.stage_channels
    assert 4 <= len(shown.stages) <= 6
    sides = [stage.shape[2] for stage in shown.stages]
    assert sides == sorted(sides, reverse=True) and sides[-1] == grid[0]
    assert shown.label_embeddings_BKD is None
    # The embedding is what the classifier sees.
    torch.testing.assert_close(network.head.classifier(shown.embedding_BC), shown.logits_BK)
    mean_BK = shown.cams_BKHW.mean((2, 3)) + network.head.classifier.bias
    close = torch.allclose(mean_BK, shown.logits_BK, rtol=1e-4, atol=1e-5)
    assert exact is None or close == exact == network.anatomy.exact
    assert network.gradient_cams == (exact is None)


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "convnext_atto"])
def test_maps_are_of_their_own_place(name: str) -> None:
    """A location's score is the classifier applied to that location: for tokens the prefix must be left out."""
    network = make(name)
    pixels = network.prepare(images())
    with torch.no_grad():
        raw = network.backbone.forward_features(pixels)
        cams_BKHW = look(network, images(), CAMS).cams_BKHW
        weight, bias = network.head.classifier.weight, network.head.classifier.bias
        if raw.ndim == 3:
            alone = network.backbone.fc_norm(raw[:, 1 + 4 * 2 + 3])  # class token, two rows of four, fourth column
            expected, found = alone @ weight.T, cams_BKHW[:, :, 2, 3]
        elif name.startswith("swin"):
            expected, found = raw[:, 1, 0] @ weight.T, cams_BKHW[:, :, 1, 0]
        else:
            alone = network.backbone.forward_head(raw[:, :, 1:, :1], pre_logits=True)
            expected, found = functional.linear(alone, weight, bias) - bias, cams_BKHW[:, :, 1, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"])
def test_logits_are_timms(name: str) -> None:
    network = make(name)
    sizes = {"img_size": 64} if name.startswith("vit") else {}
    reference = timm.create_model(name, num_classes=LABELS, **sizes).eval()
    reference.load_state_dict(network.backbone.state_dict(), strict=False)
    reference.get_classifier().load_state_dict(network.head.classifier.state_dict())
    mean, std = torch.tensor(reference.pretrained_cfg["mean"]), torch.tensor(reference.pretrained_cfg["std"])
    pixels = (images() / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = reference(pixels)
    torch.testing.assert_close(look(network, images()).logits_BK, expected, rtol=1e-4, atol=1e-5)


def test_normalisation_is_each_networks_own() -> None:
    white = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    imagenet, halves = make("resnet10t"), make("tf_efficientnet_lite0")
    torch.testing.assert_close(
        imagenet.prepare(white)[0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.6400]), atol=1e-4, rtol=0
    )
    assert halves.prepare(white).unique().tolist() == [1.0]


def test_uint8_and_float_images_are_the_same() -> None:
    network = make()
    torch.testing.assert_close(look(network, images() / 255).logits_BK, look(network, images()).logits_BK)


def test_a_network_sees_its_own_resolution() -> None:
    torch.manual_seed(0)
    spec = NetworkSpec(name="resnet10t", weights="none", resolution=96)
    larger = build_network(spec, num_labels=LABELS, head=LINEAR, resolution=64, where="model.teacher").eval()
    shown = look(larger, images(64), CAMS)
    assert shown.cams_BKHW.shape[2:] == (3, 3) == larger.shape.grid
    resized = functional.interpolate(images(64) / 255, (96, 96), mode="bilinear", antialias=True)
    torch.testing.assert_close(look(larger, resized).logits_BK, shown.logits_BK)


def test_only_what_is_read_is_filled() -> None:
    network = make("mobilenetv3_small_050")
    empty = look(network, images())
    assert empty.cams_BKHW is None and empty.stages == () and empty.embedding_BC is None
    for field in ("cams_BKHW", "stages", "embedding_BC"):
        shown = look(network, images(), frozenset({field}))
        filled = {
            "cams_BKHW": shown.cams_BKHW is not None,
            "stages": shown.stages != (),
            "embedding_BC": shown.embedding_BC is not None,
        }
        assert [name for name, there in filled.items() if there] == [field]
        torch.testing.assert_close(shown.logits_BK, empty.logits_BK)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "mobilenetv4_conv_small_050"])
def test_reading_maps_leaves_batch_norms_alone(name: str) -> None:
    """A batch norm after pooling would see each location as an image of its own."""
    states = []
    for reads in (frozenset[Field](), ALL):
        network = make(name).train()
        network(images(), reads=reads)
        states.append(network.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value)


def test_building_and_looking_draw_nothing_from_the_global_state() -> None:
    make()
    torch.manual_seed(3)
    expected = torch.rand(1)
    network = make()
    torch.manual_seed(3)
    look(network, images(), ALL)
    assert torch.rand(1) == expected
    first, second = make().state_dict(), make().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224", "mobilenetv4_conv_small_050"])
def test_maps_teach_the_backbone_and_the_classifier(name: str) -> None:
    network = make(name).train()
    network(images(), reads=CAMS).cams_BKHW.square().mean().backward()
    first, weight = next(network.backbone.parameters()), network.head.classifier.weight
    assert first.grad is not None and (first.grad != 0).any()
    assert weight.grad is not None and (weight.grad != 0).any()


def test_gradient_cams_on_request_equal_the_heads_own() -> None:
    own, gradient = make(), make(cams="gradient")
    expected = look(own, images(), CAMS).cams_BKHW
    torch.testing.assert_close(look(gradient, images(), CAMS).cams_BKHW, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224"])
def test_gradient_cams_need_a_path_from_the_map(name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.student\.cams"):
        make(name, cams="gradient")


@pytest.mark.parametrize(
    ("name", "expected"), [("resnet10t", True), ("tresnet_m", False), ("swin_tiny_patch4_window7_224", False)]
)
def test_memory_layout_is_chosen_by_family(name: str, expected: bool) -> None:
    network = make(name)
    assert (network.memory_format == torch.channels_last) == expected
    other = make(name, channels_last=not expected)
    assert (other.memory_format == torch.channels_last) != expected
    torch.testing.assert_close(look(other, images()).logits_BK, look(network, images()).logits_BK, rtol=1e-3, atol=1e-4)


def test_output_stride_makes_finer_maps() -> None:
    assert make(output_stride=8).shape.grid == (8, 8)
    with pytest.raises(ConfigError, match=r"model\.student\.output_stride"):
        make("vit_tiny_patch16_224", output_stride=8)


def test_drop_path_passes_over_blocks_in_training_alone() -> None:
    name = "mobilenetv2_035"
    dropping, whole = make(name, drop_path=0.9, frozen="batch_norm"), make(name, frozen="batch_norm")
    assert torch.equal(look(dropping, images()).logits_BK, look(whole, images()).logits_BK)
    dropping.train()
    whole.train()
    assert torch.equal(look(whole, images()).logits_BK, look(whole, images()).logits_BK)
    assert not torch.equal(look(dropping, images()).logits_BK, look(dropping, images()).logits_BK)


@pytest.mark.parametrize(("name", "drop_path"), [("densenet121", 0.1), ("resnet10t", 1.0), ("resnet10t", -0.1)])
def test_a_drop_path_that_cannot_be_is_refused(name: str, drop_path: float) -> None:
    with pytest.raises(ConfigError, match=r"model\.student\.drop_path"):
        make(name, drop_path=drop_path)


@pytest.mark.parametrize("head", ["Gmp", "MlDecoder"])
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv4_conv_small_050"])
def test_heads_that_pool_themselves_work_on_any_backbone(name: str, head: str) -> None:
    settings = {"groups": None, "channels": 16, "attention_heads": 2, "feedforward": 16, "dropout": 0.0}
    node = {"_target_": f"tutelage.multilabel.networks.heads.{head}"} | (settings if head == "MlDecoder" else {})
    network = make(name, head=node)
    shown = look(network, images(), ALL)
    assert shown.cams_BKHW.shape == (2, LABELS, *network.shape.grid)
    assert network.shape.label_embedding_dim == (16 if head == "MlDecoder" else None)


def test_head_parameter_names() -> None:
    network = make()
    assert network.head_parameter_names() == {"head.classifier.weight", "head.classifier.bias"}
    assert network.head_parameter_names() <= dict(network.named_parameters()).keys()


def test_the_state_holds_weights_only() -> None:
    assert {key.partition(".")[0] for key in make().state_dict()} == {"backbone", "head"}


@pytest.mark.parametrize("name", ["resnet10t", pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow)])
def test_compiles_without_a_break_and_learns_the_same(name: str) -> None:
    """Traced as torch.compile traces for a GPU, backward pass included; no compiler of C++ is needed for that."""
    network = make(name)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    found, expected = ((run(images(), reads=ALL)) for run in (compiled, network))
    torch.testing.assert_close(found.logits_BK, expected.logits_BK)
    torch.testing.assert_close(found.cams_BKHW, expected.cams_BKHW)
    assert len(found.stages) == len(expected.stages) > 0
    parameters = list(network.parameters())
    gradients, same = (
        torch.autograd.grad((output.logits_BK.square().sum() + output.cams_BKHW.square().sum()), parameters)
        for output in (found, expected)
    )
    for gradient, reference in zip(gradients, same, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_the_head_is_computed_in_full_precision_under_autocast(name: str) -> None:
    network = make(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = look(network, images(), CAMS | {"embedding_BC"})
    assert output.logits_BK.dtype == output.cams_BKHW.dtype == output.embedding_BC.dtype == torch.float32
    if network.anatomy.exact:
        means_BK = output.cams_BKHW.mean((2, 3)) + network.head.classifier.bias
        torch.testing.assert_close(means_BK, output.logits_BK, rtol=1e-5, atol=1e-5)
    expected = look(network, images()).logits_BK
    torch.testing.assert_close(output.logits_BK, expected, rtol=0.1, atol=0.1)


def test_what_timm_exempts_from_weight_decay_has_names_here() -> None:
    names = make("vit_tiny_patch16_224").undecayed_parameter_names()
    assert {"backbone.pos_embed", "backbone.cls_token"} <= names
    swin = make("swin_tiny_patch4_window7_224")
    tables = {name for name in swin.undecayed_parameter_names() if name.endswith("relative_position_bias_table")}
    assert len(tables) == 12 and tables <= dict(swin.named_parameters()).keys()
    assert make("resnet10t").undecayed_parameter_names() == frozenset()


def test_parameters_that_nothing_depends_on_are_frozen() -> None:
    """DDP would wait for their gradients: a gmp head leaves out the convolution after MobileNetV4's pooling."""
    gmp = {"_target_": "tutelage.multilabel.networks.heads.Gmp"}
    network = make("mobilenetv4_conv_small_050", head=gmp).train()
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    network.freeze_unused(reads=frozenset())
    frozen = {name.split(".")[1] for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"conv_head", "norm_head"} and network.training
    assert all(torch.equal(value, statistics[name]) for name, value in network.named_buffers())
    network(images()).logits_BK.sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in network.parameters())
    # A method that reads the pooled embedding uses them.
    reading = make("mobilenetv4_conv_small_050", head=gmp)
    reading.freeze_unused(reads=frozenset({"embedding_BC"}))
    assert all(parameter.requires_grad for parameter in reading.parameters())
    whole = make("mobilenetv4_conv_small_050")
    whole.freeze_unused(reads=frozenset())
    assert all(parameter.requires_grad for parameter in whole.parameters())


@pytest.mark.parametrize("name", ["resnet10t", "repvgg_a0", "tresnet_m"])
def test_a_stage_before_its_activation_is_at_hand(name: str) -> None:
    network = make(name)
    for norm in network.stage_norms():
        assert norm is not None
        nn.init.normal_(norm.bias)
        nn.init.ones_(norm.weight)  # timm begins residual branches at 0
    inputs = network.stage_inputs()
    network.watch([watched for watched in inputs if watched is not None])
    shown = look(network, images(), frozenset({"stages"}))
    assert len(inputs) == len(shown.stages) and None not in inputs
    for watched, stage_BCHW in zip(inputs, shown.stages, strict=True):
        assert watched is not None and shown.features[watched].min() < 0
        positive = stage_BCHW > 0  # TResNet's stem has a leaky ReLU
        torch.testing.assert_close(shown.features[watched][positive], stage_BCHW[positive])
        assert (shown.features[watched][~positive] <= 0).all()


def test_the_norm_of_a_stage_is_the_last_of_its_main_path() -> None:
    network = make("resnet18")
    assert [norm and norm.num_features for norm in network.stage_norms()] == [64, 64, 128, 256, 512]
    assert network.stage_norms()[4] is network.backbone.layer4[1].bn2
    assert make("resnet50").anatomy.stages[1].norm == "layer1.2.bn3"
    assert make("mobilenetv2_100").stage_inputs()[-1] is None  # linear bottlenecks end without an activation
    assert set(make("convnext_atto").stage_norms()) == {None}
    assert set(make("swin_tiny_patch4_window7_224").stage_inputs()) == {None}


def test_tokens_of_any_block_can_be_watched() -> None:
    network = make("vit_tiny_patch16_224")
    network.watch(["blocks.0", "blocks.11"])
    shown = look(network, images())
    assert {name: tuple(value.shape) for name, value in shown.features.items()} == {
        "blocks.0": (2, 17, 192),
        "blocks.11": (2, 17, 192),
    }
    assert (network.shape.kind, network.shape.num_prefix_tokens) == ("transformer", 1)
    with pytest.raises(KeyError):
        network.watch(["blocks.12"])


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "swin_tiny_patch4_window7_224", "mixer_s32_224"])
def test_the_head_on_the_last_map_gives_the_logits(name: str) -> None:
    network = make(name)
    shown = look(network, images(), frozenset({"feature_map_BCHW"}))
    assert shown.feature_map_BCHW is not None
    assert shown.feature_map_BCHW.shape == (2, network.shape.map_channels, *network.shape.grid)
    with torch.no_grad():
        torch.testing.assert_close(network.classify_map(shown.feature_map_BCHW).logits_BK, shown.logits_BK)


@pytest.mark.parametrize("head", ["Linear", "Gmp", "MlDecoder"])
def test_grad_cams_of_chosen_labels_come_from_any_head(head: str) -> None:
    settings: dict[str, Any] = {"_target_": f"tutelage.multilabel.networks.heads.{head}"}
    if head == "MlDecoder":
        settings |= {"groups": None, "channels": 16, "attention_heads": 2, "feedforward": 16, "dropout": 0.0}
    network, labels_BL = make(head=settings), torch.tensor([[1], [3]])
    shown = network(images(), reads=frozenset({"grad_cams", "label_cams"}))
    maps_BLHW = shown.grad_cams(labels_BL)
    assert maps_BLHW.shape == (2, 1, 2, 2) and shown.chosen_cams(labels_BL).shape == (2, 1, 2, 2)
    if head == "Linear":  # then both are one
        torch.testing.assert_close(maps_BLHW, shown.chosen_cams(labels_BL), rtol=1e-4, atol=1e-5)
    maps_BLHW.square().sum().backward()
    assert next(network.backbone.parameters()).grad is not None
    # Of a teacher, whose gradients are off, they are the same without gradient.
    teacher_BLHW = look(network, images(), frozenset({"grad_cams"})).grad_cams(labels_BL)
    assert not teacher_BLHW.requires_grad
    torch.testing.assert_close(teacher_BLHW, maps_BLHW.detach())


def test_an_unknown_name_is_refused_with_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"model\.student\.name: timm knows no network 'resne34'.*resnet34"):
        make("resne34")


def test_a_resolution_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.student\.resolution: .* cannot take images of 64×64"):
        make("efficientformer_l1")
    with pytest.raises(ConfigError, match=r"model\.student\.resolution"):
        make("vit_tiny_patch16_224", resolution=8)

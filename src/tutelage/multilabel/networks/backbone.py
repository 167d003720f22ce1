"""timm's backbones behind one face: a map of locations, and the pooled embedding that timm's own head sees.

timm's ``forward_features`` ends in NCHW for a ResNet, NHWC for a Swin, tokens for a ViT; and between that and the
classifier lies ``forward_head``: plain pooling in a ResNet, pooling then a norm in a ConvNeXt, pooling then a layer
in a MobileNetV3, the class token in a ViT. Each *location* here is what ``forward_head`` makes of one location
alone. Where pooling is a mean and nothing follows it, the mean of the locations is the embedding, and class
activation maps are exact.
"""

# B batch, C channels, H W map, N tokens, M = B·H·W locations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import create_model, get_pretrained_cfg, is_model, list_models
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.core.errors import ConfigError

Layout = Literal["nchw", "nhwc", "tokens"]


class Backbone(nn.Module, ABC):
    """What timm's networks offer beyond a module; timm itself is untyped, and none of its classes derives from this."""

    num_features: int

    @abstractmethod
    def forward_features(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the last features, in the network's own layout."""

    @abstractmethod
    def forward_head(self, raw: Tensor, *, pre_logits: bool) -> Tensor:
        """Pool the last features, up to the classifier's input."""

    @abstractmethod
    def forward_intermediates(
        self, pixels_BCHW: Tensor, *, indices: list[int] | None, norm: bool, output_fmt: str
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the last features and the feature maps on the way."""


def undecayed(backbone: Backbone) -> frozenset[str]:
    """Return the names of the parameters that timm's own recipe for a network exempts from weight decay."""
    exempt = getattr(backbone, "no_weight_decay", None)  # not all of timm's networks have the method
    return frozenset() if exempt is None else frozenset(exempt())


@dataclass(frozen=True, slots=True)
class Stage:
    """One of a backbone's stages.

    Attributes:
        index: Which of timm's intermediates it is.
        channels: Of its feature map.
        grid: Height and width of its feature map.
        activation: The module of the backbone whose output it is, a ReLU or the like; its input is the stage before
            the activation. None where a sum, a norm or a convolution comes last.
        norm: The last batch norm of the stage's main path (not of a shortcut); None where it has none.
    """

    index: int
    channels: int
    grid: tuple[int, int]
    activation: str | None
    norm: str | None


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What a probe of the backbone at its resolution found.

    Attributes:
        layout: Of ``forward_features``.
        prefix: Tokens before the patches (class, distillation, registers).
        grid: Height and width of the map.
        map_channels: Channels of the map.
        embedding_dim: Channels of the pooled embedding.
        locating: How a location is made: it is the map's own (``same``), ``forward_head`` applied to each
            (``each``), or that cannot be done (``never``: batch norm or a large kernel after pooling) and the
            map itself stands for it.
        exact: The mean of the locations is the pooled embedding.
        map_is_pooled: The embedding depends on the map. A ViT's may be a token of its own.
        stages: Shallow to deep; empty where timm cannot give them.
    """

    layout: Layout
    prefix: int
    grid: tuple[int, int]
    map_channels: int
    embedding_dim: int
    locating: Literal["same", "each", "never"]
    exact: bool
    map_is_pooled: bool
    stages: tuple[Stage, ...]

    @property
    def location_channels(self) -> int:
        """Channels of one location."""
        return self.embedding_dim if self.locating == "each" else self.map_channels


def create_backbone(
    name: str, *, resolution: int, output_stride: int | None, drop_path: float = 0, pretrained: bool, where: str
) -> Backbone:
    """Make a timm network without a classifier, for square images of a resolution.

    Raises:
        ConfigError: timm knows no such network, it cannot take this resolution, or has no paths to drop.
        Exception: Whatever the hub raises while it fetches weights; see :mod:`tutelage.multilabel.networks.weights`.
    """
    options: dict[str, float] = {
        **creation_options(name, resolution=resolution, output_stride=output_stride, where=where)
    }
    if not 0 <= drop_path < 1:
        raise ConfigError(
            f"{where}.drop_path", f"{drop_path} is not a probability below 1", "give 0 for none; 0.1 is mild"
        )
    if drop_path:  # not every network knows the word
        options["drop_path_rate"] = drop_path
    try:
        return cast(Backbone, create_model(name, pretrained=pretrained, num_classes=0, **options))
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
        if not options:
            raise
        if "drop_path_rate" in str(error):
            raise ConfigError(f"{where}.drop_path", f"{name} has no residual paths to drop", "set it to 0") from None
        if output_stride is not None:
            raise ConfigError(
                f"{where}.output_stride", f"{name} cannot be made with {output_stride} ({error})", "set it to null"
            ) from None
        raise _wrong_size(name, resolution, error, where) from None


def creation_options(name: str, *, resolution: int, output_stride: int | None, where: str) -> dict[str, int]:
    """Return what ``timm.create_model`` must be told beside the name: often nothing."""
    described = pretrained_cfg(name, where=where)
    options = {}
    if described.fixed_input_size and described.input_size[-1] != resolution:
        options["img_size"] = resolution
    if output_stride is not None:
        options["output_stride"] = output_stride
    return options


def probe(model: Backbone, *, resolution: int, where: str) -> Anatomy:
    """Learn a backbone's anatomy from one pass over noise. Leaves its state and the global random state alone.

    Raises:
        ConfigError: The network cannot take images of this resolution, or has no final map.
    """
    generator = torch.Generator().manual_seed(0)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            pixels = torch.rand(2, 3, resolution, resolution, generator=generator)
            raw = model.forward_features(pixels)
            layout, prefix, grid = _layout(model, raw, where=where)
            # The features of an untrained network hardly vary; noise tells a mean from what is nearly one.
            raw = torch.randn(raw.shape, generator=generator)
            embedding_BC, has_batch_norm = _watched_head(model, raw)
            map_BCHW = to_map(raw, layout=layout, prefix=prefix, grid=grid)
            stages = _stages(model, pixels)
            anatomy = Anatomy(
                layout=layout,
                prefix=prefix,
                grid=grid,
                map_channels=map_BCHW.shape[1],
                embedding_dim=embedding_BC.shape[1],
                locating="each",
                exact=False,
                map_is_pooled=_map_is_pooled(model, raw, embedding_BC, prefix=prefix),
                stages=stages,
            )
            spatial_BCHW = None if has_batch_norm else _try_locations(model, raw, anatomy)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _wrong_size(type(model).__name__, resolution, error, where) from None
    finally:
        model.train(training)
    if spatial_BCHW is None:
        return replace(anatomy, locating="never")
    same = spatial_BCHW.shape == map_BCHW.shape and torch.allclose(spatial_BCHW, map_BCHW, atol=1e-6)
    exact = torch.allclose(spatial_BCHW.mean((2, 3)), embedding_BC, atol=1e-5)
    return replace(anatomy, locating="same" if same else "each", exact=exact)


def to_map(raw: Tensor, *, layout: Layout, prefix: int, grid: tuple[int, int]) -> Tensor:
    """Lay out what ``forward_features`` returned as [B, C, H, W], without the prefix tokens."""
    if layout == "nchw":
        return raw
    if layout == "nhwc":
        return raw.permute(0, 3, 1, 2)
    patches_BNC = raw[:, prefix:]
    return patches_BNC.transpose(1, 2).reshape(patches_BNC.shape[0], patches_BNC.shape[2], *grid)


def from_map(map_BCHW: Tensor, *, layout: Layout) -> Tensor:
    """Lay a map [B, C, H, W] out as ``forward_features`` returns it; of tokens, patches without class tokens."""
    if layout == "nchw":
        return map_BCHW
    if layout == "nhwc":
        return map_BCHW.permute(0, 2, 3, 1)
    return map_BCHW.flatten(2).transpose(1, 2)


def locations(model: Backbone, raw: Tensor, anatomy: Anatomy) -> Tensor:
    """Return the locations, [B, C, H, W]: what the classifier would see of each alone."""
    map_BCHW = to_map(raw, layout=anatomy.layout, prefix=anatomy.prefix, grid=anatomy.grid)
    if anatomy.locating != "each":
        return map_BCHW
    # Each location becomes an image of its own, one pixel large: pooling does nothing, what follows it does its work.
    batch, channels, height, width = map_BCHW.shape
    each_MC = map_BCHW.permute(0, 2, 3, 1).reshape(-1, channels)
    if anatomy.layout == "nchw":
        alone = each_MC[:, :, None, None]
    elif anatomy.layout == "nhwc":
        alone = each_MC[:, None, None, :]
    else:
        alone = each_MC[:, None, :].expand(-1, anatomy.prefix + 1, -1)
    seen_MC: Tensor = model.forward_head(alone, pre_logits=True)
    return seen_MC.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class PretrainedConfig:
    """The part of timm's description of a network that is used here.

    Attributes:
        input_size: Channels, height, width that it was made for.
        fixed_input_size: It takes no other size unless made for it.
        mean: Of the images it expects, in [0, 1].
        std: Likewise.
        classifier: Names of its classifiers in the state dict.
    """

    input_size: tuple[int, int, int]
    fixed_input_size: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classifier: tuple[str, ...]


def pretrained_cfg(name: str, *, where: str) -> PretrainedConfig:
    """Look a network up in timm, without making it.

    Raises:
        ConfigError: timm knows no such network.
    """
    if not is_model(name):
        near = difflib.get_close_matches(name, list_models(), n=3)
        raise ConfigError(
            f"{where}.name",
            f"timm knows no network {name!r}",
            f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them",
        )
    found = get_pretrained_cfg(name)
    values: dict[str, Any] = found.to_dict() if found else {}
    classifier = values.get("classifier") or ()
    return PretrainedConfig(
        input_size=values.get("input_size", (3, 224, 224)),
        fixed_input_size=bool(values.get("fixed_input_size")),
        mean=values.get("mean", IMAGENET_DEFAULT_MEAN),
        std=values.get("std", IMAGENET_DEFAULT_STD),
        classifier=(classifier,) if isinstance(classifier, str) else tuple(classifier),
    )


def _layout(model: Backbone, raw: Tensor, *, where: str) -> tuple[Layout, int, tuple[int, int]]:
    channels = model.num_features
    if raw.ndim == 4 and raw.shape[1] == channels:
        return "nchw", 0, (raw.shape[2], raw.shape[3])
    if raw.ndim == 4 and raw.shape[3] == channels:
        return "nhwc", 0, (raw.shape[1], raw.shape[2])
    if raw.ndim == 3:
        try:
            prefix = int(model.num_prefix_tokens)  # type: ignore[arg-type]
        except AttributeError:  # mixers have none
            prefix = 0
        side = math.isqrt(raw.shape[1] - prefix)
        if side * side == raw.shape[1] - prefix:
            return "tokens", prefix, (side, side)
    raise ConfigError(
        f"{where}.name",
        f"{type(model).__name__} ends in features of shape {tuple(raw.shape)}, which are not a feature map",
        "choose a network that keeps a map of locations to its end",
    )


def _watched_head(model: Backbone, raw: Tensor) -> tuple[Tensor, bool]:
    """Pool as timm does; say whether a batch norm took part, whose statistics single locations would spoil."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: called.append(module))
        for module in model.modules()
        if isinstance(module, _BatchNorm)
    ]
    try:
        return model.forward_head(raw, pre_logits=True), bool(called)
    finally:
        for hook in hooks:
            hook.remove()


def _map_is_pooled(model: Backbone, raw: Tensor, embedding_BC: Tensor, *, prefix: int) -> bool:
    if prefix == 0:
        return True
    other = raw.clone()
    other[:, prefix:] += 1
    return not torch.equal(model.forward_head(other, pre_logits=True), embedding_BC)


def _try_locations(model: Backbone, raw: Tensor, anatomy: Anatomy) -> Tensor | None:
    try:
        found = locations(model, raw, anatomy)
    except (RuntimeError, AssertionError, ValueError):  # VGG's 7×7 kernel after pooling, for one
        return None
    expected = (raw.shape[0], anatomy.embedding_dim, *anatomy.grid)
    return found if found.shape == expected else None


def _stages(model: Backbone, pixels_BCHW: Tensor) -> tuple[Stage, ...]:
    called: list[tuple[str, nn.Module, Tensor]] = []  # in the order in which they finish

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, _, output: called.append((name, module, output)) if isinstance(output, Tensor) else None

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if not isinstance(module, nn.Identity)
    ]
    try:
        _, found = model.forward_intermediates(pixels_BCHW, indices=None, norm=False, output_fmt="NCHW")
    except (AttributeError, TypeError):  # timm has no intermediates of this network
        return ()
    finally:
        for hook in hooks:
            hook.remove()
    # A ViT lists every block: four, evenly spaced to the last, are its stages.
    count = len(found)
    indices = tuple(range(count)) if count <= 6 else tuple(round(count * part / 4) - 1 for part in range(1, 5))
    stages, begin = [], 0
    for index in indices:
        # Sums and activations are written in place, so of the modules with this very tensor as output the last counts.
        ends = [place for place, (*_, output) in enumerate(called) if output is found[index]]
        end = ends[-1] + 1 if ends else begin
        leaves = [called[place] for place in ends if next(called[place][1].children(), None) is None]
        activation = leaves[-1][0] if leaves and is_activation(leaves[-1][1]) else None
        norms = [
            name
            for name, module, _ in called[begin:end]
            if isinstance(module, _BatchNorm) and not any(word in name for word in ("downsample", "shortcut"))
        ]
        grid = (found[index].shape[2], found[index].shape[3])
        stages.append(Stage(index, found[index].shape[1], grid, activation, norms[-1] if norms else None))
        begin = end
    return tuple(stages)


def is_activation(module: nn.Module) -> bool:
    """Say whether a module is one of torch's or timm's activation functions."""
    kind = type(module)
    here = kind.__module__ in ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me")
    return here and not isinstance(module, nn.MultiheadAttention)


def _wrong_size(name: str, resolution: int, error: Exception, where: str) -> ConfigError:
    return ConfigError(
        f"{where}.resolution",
        f"{name} cannot take images of {resolution}×{resolution} ({error})",
        f"set {where}.resolution to a size it was made for, such as 224",
    )

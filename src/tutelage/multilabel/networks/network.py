"""Any timm backbone with one of our heads: uint8 images in, what is read of them out."""

# B batch, K labels, C channels, H W map

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.core.build import build
from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks import backbone as backbones
from tutelage.multilabel.networks.backbone import Anatomy, Backbone
from tutelage.multilabel.networks.cam import all_labels, with_grad_cams
from tutelage.multilabel.networks.heads import MAPS, FeatureDims, FeaturesOnly, Head
from tutelage.multilabel.networks.output import Field, NetOutput
from tutelage.multilabel.networks.weights import load_checkpoint, load_weights

# What only a network with a classifier of the data's labels shows.
OF_LABELS: frozenset[Field] = frozenset({"logits_BK", "cams_BKHW", "label_cams", "grad_cams", "label_embeddings_BKD"})


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """One network, as conf/model/*.yaml gives it.

    Attributes:
        name: Any of timm's networks.
        weights: ``imagenet`` (timm's hub), ``none``, or a local file in timm's form; its classifier is not used.
        resolution: The side of the images it sees; None for the data's.
        checkpoint: A trained network with the data's labels: a run's checkpoint, or an exported timm state dict.
        output_stride: How many pixels a location of the maps stands for; None for the network's own, 32 for most. Finer
            maps cost time. Not every network can.
        drop_path: Chance, while it trains, that the last residual block is passed over; less for those before it
            (stochastic depth, arXiv 1603.09382).
        channels_last: Memory layout; None chooses by family.
        cams: ``head`` for the head's own maps, ``gradient`` for Grad-CAM.
        frozen: What stays as the weights brought it. ``batch_norm``: the statistics of the backbone's batch norms, for
            small batches, whose own would be noise. ``backbone``: all of it, so that the head alone learns: with
            ``head=linear`` a linear probe, and, as another run's ``checkpoint``, the first half of probing, then
            fine-tuning (Kumar et al., ICLR 2022).
        features_only: A teacher without a classifier of the data's labels, such as a DINOv3 or CLIP tower: it is
            neither trained nor scored, and serves methods that read features, stages or embeddings.
    """

    name: str
    weights: str
    resolution: int | None = None
    checkpoint: str | None = None
    output_stride: int | None = None
    drop_path: float = 0
    channels_last: bool | None = None
    cams: Literal["head", "gradient"] = "head"
    frozen: Literal["batch_norm", "backbone"] | None = None
    features_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A teacher and its student.

    Attributes:
        teacher: Trained first, under supervision alone, unless it has a checkpoint.
        student: Learns from it.
    """

    teacher: NetworkSpec
    student: NetworkSpec


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """What a network shows, for those who size themselves by it.

    Attributes:
        num_labels: Its logits.
        kind: ``transformer`` where its features end as tokens or in NHWC (ViT, Swin), else ``cnn``.
        resolution: Side of the images that it sees.
        stage_channels: Channels of its stages, shallow to deep; empty where timm cannot give them.
        stage_grids: Height and width of its stages.
        map_channels: Channels of its last feature map.
        grid: Height and width of its last feature map, and of its class activation maps.
        num_prefix_tokens: Tokens before the patches (class, registers); 0 where it has no tokens.
        embedding_dim: Channels of the pooled embedding.
        label_embedding_dim: Channels of a label's embedding; None where the head has none.
        map_is_pooled: The logits depend on the last feature map; of a ViT's class token, they do not.
    """

    num_labels: int
    kind: Literal["cnn", "transformer"]
    resolution: int
    stage_channels: tuple[int, ...]
    stage_grids: tuple[tuple[int, int], ...]
    map_channels: int
    grid: tuple[int, int]
    num_prefix_tokens: int
    embedding_dim: int
    label_embedding_dim: int | None
    map_is_pooled: bool


class Network(nn.Module):
    """A backbone and a head. It resizes and normalises for itself, so two networks can look at one batch."""

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        head: Head,
        anatomy: Anatomy,
        spec: NetworkSpec,
        num_labels: int,
        resolution: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.spec = spec
        self.anatomy = anatomy
        self.resolution = resolution
        self.register_buffer("mean_C11", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std_C11", torch.tensor(std)[:, None, None], persistent=False)
        self.num_labels = num_labels
        self._features: dict[str, Tensor] = {}
        self._watched: set[str] = set()
        self._compiled: Callable[..., tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]] | None = None
        channels_last = _suits_channels_last(backbone, anatomy) if spec.channels_last is None else spec.channels_last
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)
        if spec.frozen == "backbone":
            backbone.requires_grad_(False)
        self.train()  # at once: Lightning trains modules in the mode that it finds them in

    def train(self, mode: bool = True) -> "Network":
        super().train(mode)
        if self.spec.frozen == "backbone":
            self.backbone.eval()
        elif self.spec.frozen == "batch_norm":
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    @property
    def shape(self) -> NetworkShape:
        """What the network shows."""
        anatomy = self.anatomy
        return NetworkShape(
            num_labels=self.num_labels,
            kind="cnn" if anatomy.layout == "nchw" else "transformer",
            resolution=self.resolution,
            stage_channels=tuple(stage.channels for stage in anatomy.stages),
            stage_grids=tuple(stage.grid for stage in anatomy.stages),
            map_channels=anatomy.map_channels,
            grid=anatomy.grid,
            num_prefix_tokens=anatomy.prefix,
            embedding_dim=anatomy.embedding_dim,
            label_embedding_dim=self.head.label_embedding_dim,
            map_is_pooled=anatomy.map_is_pooled or not self.head.pointwise,
        )

    @property
    def gradient_cams(self) -> bool:
        """Whether ``cams_BKHW`` are Grad-CAMs, by the user's choice or because nothing else can be had."""
        # never: nothing can be applied at single locations of such a backbone, so its maps come from gradients.
        return self.spec.cams == "gradient" or (self.anatomy.locating == "never" and self.head.pointwise)

    def forward(self, images_BCHW: Tensor, *, reads: frozenset[Field] = frozenset()) -> NetOutput:
        """Look at a batch.

        Args:
            images_BCHW: uint8 in [0, 255] or float in [0, 1], not normalised, of any resolution.
            reads: What to fill of the output beside the logits. Nothing else is computed.
        """
        run = self._trunk if self._compiled is None else self._compiled
        raw, stages, watched = run(images_BCHW, with_stages="stages" in reads)
        wants_gradients = "grad_cams" in reads or (self.gradient_cams and bool(reads & MAPS))
        if wants_gradients:
            # Of a head whose own maps are asked for beside its Grad-CAMs, both are made.
            reads_of_head = reads - MAPS if self.gradient_cams else reads
            output, grad_cams = with_grad_cams(
                lambda seen: self._headed(seen, reads=reads_of_head), raw, to_map=self._to_map
            )
            if "grad_cams" in reads:
                output.grad_cams = grad_cams
            if self.gradient_cams and "label_cams" in reads:
                output.label_cams = grad_cams
            if self.gradient_cams and "cams_BKHW" in reads:
                output.cams_BKHW = grad_cams(all_labels(output.logits_BK))
        else:
            output = self._headed(raw, reads=reads)
        output.stages = stages
        output.features |= watched  # beside what the head shows of its own
        return output

    def _trunk(self, images_BCHW: Tensor, *, with_stages: bool) -> tuple[Tensor, tuple[Tensor, ...], dict[str, Tensor]]:
        """Run the backbone: the last features in its own layout, the stages, and what is watched."""
        pixels_BCHW = self.prepare(images_BCHW)
        stages: tuple[Tensor, ...] = ()
        if with_stages:
            indices = [stage.index for stage in self.anatomy.stages]
            raw, intermediates = self.backbone.forward_intermediates(
                pixels_BCHW, indices=indices, norm=False, output_fmt="NCHW"
            )
            stages = tuple(intermediates)
        else:
            raw = self.backbone.forward_features(pixels_BCHW)
        watched = dict(self._features)
        self._features.clear()
        return raw, stages, watched

    def check_reads(self, reads: frozenset[Field], *, where: str, method: str) -> None:
        """Refuse to be read what the network does not have.

        Args:
            reads: What a method reads of this network.
            where: The network's place in the config.
            method: For the error.

        Raises:
            ConfigError: It shows no stages, no maps, no label embeddings, or no logits.
        """
        name = self.spec.name
        if self.spec.features_only and (missing := reads & OF_LABELS):
            raise ConfigError(
                f"{where}.features_only",
                f"{method} reads {', '.join(sorted(missing))}, which {name} has none of without a classifier",
                "choose a method that reads features, or features_only=false",
            )
        if "stages" in reads and not self.anatomy.stages:
            raise ConfigError(
                f"{where}.name", f"{method} reads stages, and timm gives none of {name}", "choose another"
            )
        if reads & MAPS and not self.head.has_maps and self.spec.cams != "gradient":
            raise ConfigError(
                f"{where}.cams",
                f"{method} reads class activation maps, and the head {type(self.head).__name__} makes none",
                f"set {where}.cams=gradient for Grad-CAM",
            )
        if "grad_cams" in reads and not self.shape.map_is_pooled:
            raise ConfigError(
                f"{where}.name",
                f"{method} reads Grad-CAMs, and none reaches the last map of {name}, which classifies by a token",
                "choose another network, or a head that looks at all locations (gmp, lse, csra, ml_decoder)",
            )
        if "label_embeddings_BKD" in reads and self.head.label_embedding_dim is None:
            raise ConfigError(
                where,
                f"{method} reads an embedding of each label, and the head {type(self.head).__name__} has none",
                "choose head=ml_decoder with head.groups=null, for the teacher head@teacher.head=ml_decoder",
            )

    def watch(self, names: Iterable[str]) -> None:
        """Keep what modules of the backbone put out, in ``NetOutput.features`` under the same names.

        Args:
            names: Of modules, as ``backbone.named_modules()`` has them: ``layer3``, ``blocks.0``. With ``.input`` at
                the end, what the module is given: ``layer3.5.act2.input`` is the stage before its activation.

        Raises:
            KeyError: The backbone has no such module.
        """
        modules = dict(self.backbone.named_modules())
        for name in names:
            if name in self._watched:
                continue
            self._watched.add(name)
            module = modules[name.removesuffix(".input")]
            if name.endswith(".input"):
                if "inplace" in vars(module):
                    module.inplace = False  # it would write over what is kept
                module.register_forward_pre_hook(partial(_keep_input, self._features, name))
            else:
                module.register_forward_hook(partial(_keep_output, self._features, name))

    def replace_head(self, head: Head) -> None:
        """Take another head, with what it learns. What the network shows, exports and saves is then that head's."""
        self.head = head.to(memory_format=self.memory_format)
        self.train(self.training)

    def compile_backbone(self) -> None:
        """Compile the backbone's forward. The small head is left out: Grad-CAM differentiates it twice."""
        self._compiled = torch.compile(self._trunk)

    def stage_norms(self) -> tuple[_BatchNorm | None, ...]:
        """Return the last batch norm on each stage's main path; None where a stage has none."""
        modules = dict(self.backbone.named_modules())
        norms = [modules[stage.norm] if stage.norm is not None else None for stage in self.anatomy.stages]
        assert all(norm is None or isinstance(norm, _BatchNorm) for norm in norms)
        return tuple(cast(_BatchNorm | None, norm) for norm in norms)

    def stage_inputs(self) -> tuple[str | None, ...]:
        """Return what to :meth:`watch` for each stage before its last activation; None where it ends without one."""
        return tuple(stage.activation and f"{stage.activation}.input" for stage in self.anatomy.stages)

    def classify_map(self, feature_map_BCHW: Tensor, *, reads: frozenset[Field] = frozenset()) -> NetOutput:
        """Apply the backbone's pooling and the head to a last feature map, as ``feature_map_BCHW`` shows it.

        The network must have no tokens before the patches: they are not in the map.
        """
        assert self.anatomy.prefix == 0, "class tokens are not in the map"
        return self._headed(backbones.from_map(feature_map_BCHW, layout=self.anatomy.layout), reads=reads)

    def prepare(self, images_BCHW: Tensor) -> Tensor:
        """Resize to this network's resolution, and normalise as it expects."""
        pixels_BCHW = images_BCHW.to(self.mean_C11.dtype)
        if images_BCHW.dtype == torch.uint8:
            pixels_BCHW = pixels_BCHW / 255
        if tuple(pixels_BCHW.shape[2:]) != (self.resolution, self.resolution):
            size = (self.resolution, self.resolution)
            pixels_BCHW = functional.interpolate(pixels_BCHW, size, mode="bilinear", antialias=True)
        pixels_BCHW = (pixels_BCHW - self.mean_C11) / self.std_C11
        return pixels_BCHW.contiguous(memory_format=self.memory_format)

    def init_head_bias(self, prior_K: Tensor) -> None:
        """Let the logits of a new head start at each label's share of the training pictures, in (0, 1).

        Most labels are rare. From a bias of 0 the first steps go into pushing all of them down, which a head can only
        do by weights against whatever features are common, and its maps then shun objects (Lin et al., ICCV 2017, §4.1
        start at one share for all). A head without a bias stays as it is.
        """
        bias_K = self.head.bias()
        if bias_K is not None:
            with torch.no_grad():
                bias_K.copy_(torch.logit(prior_K))

    def head_parameter_names(self) -> frozenset[str]:
        """Return the names, in this module, of the parameters that a head learning rate is for."""
        return frozenset(f"head.{name}" for name, _ in self.head.named_parameters())

    def undecayed_parameter_names(self) -> frozenset[str]:
        """Return the names, in this module, of the parameters that timm trains without weight decay.

        A ViT's position embedding and class token, a Swin's tables of position biases: a value near 0 is no simpler
        there than another.
        """
        return frozenset(f"backbone.{name}" for name in backbones.undecayed(self.backbone))

    def freeze_unused(self, *, reads: frozenset[Field]) -> None:
        """Freeze the parameters that neither the logits nor what is read depends on.

        They never get a gradient, for which DDP would wait. A head that scores single locations leaves those without
        one that its backbone has after its pooling, such as MobileNetV4's ``conv_head``.
        """
        was_training = self.training
        self.eval()  # a probe must not enter the statistics of batch norms
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        pixels_BCHW = torch.rand(2, 3, self.resolution, self.resolution, device=self.mean_C11.device)
        output: NetOutput = self(pixels_BCHW, reads=reads - {"label_cams", "grad_cams"})
        total = torch.stack([value.float().sum() for value in output.tensors() if value.requires_grad]).sum()
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(total, parameters, allow_unused=True), strict=True
        ):
            parameter.requires_grad_(gradient is not None)
        self.train(was_training)

    def _headed(self, raw: Tensor, *, reads: frozenset[Field]) -> NetOutput:
        if torch.is_autocast_enabled(raw.device.type):
            # In full precision, which costs little here: bfloat16 would round logits and maps to three digits.
            with torch.autocast(raw.device.type, enabled=False):
                return self._headed(raw.float(), reads=reads)
        features = BackboneFeatures(self.backbone, raw, anatomy=self.anatomy)
        output: NetOutput = self.head(features, reads=reads)
        if "embedding_BC" in reads:
            output.embedding_BC = features.pooled()
        if "feature_map_BCHW" in reads:
            output.feature_map_BCHW = features.feature_map()
        return output

    def _to_map(self, raw: Tensor) -> Tensor:
        anatomy = self.anatomy
        return backbones.to_map(raw, layout=anatomy.layout, prefix=anatomy.prefix, grid=anatomy.grid)


class BackboneFeatures:
    """A backbone's features of one batch, pooled or by location, when asked."""

    def __init__(self, backbone: Backbone, raw: Tensor, *, anatomy: Anatomy) -> None:
        self._backbone = backbone
        self._raw = raw
        self._anatomy = anatomy
        self._pooled: Tensor | None = None

    def pooled(self) -> Tensor:
        """Pool as timm's own head does: [B, C]."""
        if self._pooled is None:  # once: a batch norm after pooling must see a batch once
            self._pooled = self._backbone.forward_head(self._raw, pre_logits=True)
        return self._pooled

    def spatial_features(self) -> Tensor:
        """Return each location as the classifier would see it alone: [B, C, H, W]."""
        return backbones.locations(self._backbone, self._raw, self._anatomy)

    def feature_map(self) -> Tensor:
        """Return the last feature map, without class tokens: [B, C, H, W]."""
        anatomy = self._anatomy
        return backbones.to_map(self._raw, layout=anatomy.layout, prefix=anatomy.prefix, grid=anatomy.grid)


def build_network(
    spec: NetworkSpec, *, num_labels: int, head: Mapping[str, Any], resolution: int, where: str
) -> Network:
    """Make a network with its weights.

    Args:
        spec: The network.
        num_labels: Of the data.
        head: The config node of the head.
        resolution: Of the data's images; the spec's own wins.
        where: The spec's place in the config, for errors: ``model.student``.

    Raises:
        ConfigError: An unknown name, an unfitting resolution, or weights that cannot be had or do not fit.
    """
    resolution = resolution if spec.resolution is None else spec.resolution
    # A checkpoint brings all weights: do not ask the hub for others first.
    weights = spec.weights if spec.checkpoint is None else "none"
    backbone = load_weights(
        spec.name,
        weights=weights,
        resolution=resolution,
        output_stride=spec.output_stride,
        drop_path=spec.drop_path,
        where=where,
    )
    anatomy = backbones.probe(backbone, resolution=resolution, where=where)
    dims = FeatureDims(pooled=anatomy.embedding_dim, spatial=anatomy.location_channels)
    described = backbones.pretrained_cfg(spec.name, where=where)
    if spec.cams == "gradient" and not anatomy.map_is_pooled:
        raise ConfigError(
            f"{where}.cams",
            f"{spec.name} classifies by a token of its own, so no gradient reaches its last map",
            f"set {where}.cams=head",
        )
    network = Network(
        backbone,
        head=FeaturesOnly()
        if spec.features_only
        else build(head, where=f"{where}.head", dims=dims, num_labels=num_labels),
        anatomy=anatomy,
        spec=spec,
        num_labels=num_labels,
        resolution=resolution,
        mean=described.mean,
        std=described.std,
    )
    if spec.checkpoint is not None:
        load_checkpoint(network, spec.checkpoint, classifier=described.classifier, where=where)
    return network


def _keep_input(kept: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    kept[name] = inputs[0]


def _keep_output(
    kept: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    kept[name] = output


def _suits_channels_last(backbone: Backbone, anatomy: Anatomy) -> bool:
    # Training on a GPU: ResNet-50 +47 %, ResNet-101 +31 %, MobileNetV2 +26 %, but TResNet-L falls to a quarter.
    return anatomy.layout == "nchw" and type(backbone).__name__ != "TResNet"

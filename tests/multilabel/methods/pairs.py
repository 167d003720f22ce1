"""Small pairs of networks of unlike kinds, a batch, and a method set up between them, for the tests of methods."""

# B batch, K labels

import copy
from functools import cache
from pathlib import Path
from typing import Any

import timm.models
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tutelage.core.build import build
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network
from tutelage.multilabel.networks.output import NetOutput

ROOT = Path(__file__).resolve().parents[3]
LABELS, SAMPLES, SIDE = 4, 12, 64
HEADS = "tutelage.multilabel.networks.heads"
ML_DECODER: dict[str, Any] = {
    "_target_": f"{HEADS}.MlDecoder",
    "groups": None,
    "channels": 16,
    "attention_heads": 2,
    "feedforward": 16,
    "dropout": 0.0,
}
# name: student, its resolution, teacher, its resolution
PAIRS = {
    "cnn_from_cnn": ("test_efficientnet", 64, "test_resnet", 96),
    "cnn_from_vit": ("test_resnet", 64, "test_vit", 160),
    "vit_from_cnn": ("test_vit", 160, "test_resnet", 64),
    "cnn_from_swin": ("test_resnet", 64, "tiny_swin", 64),
    "swin_from_cnn": ("tiny_swin", 64, "test_resnet", 96),
}
default_cfgs = timm.models.generate_default_cfgs(
    {"tiny_swin.untrained": timm.get_pretrained_cfg("swin_tiny_patch4_window7_224").to_dict()}
)


@timm.models.register_model
def tiny_swin(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's Swin (NHWC, shifted windows) in a hundredth of its size; timm has small ones of other kinds for tests."""
    small = {"patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
    network: nn.Module = timm.models.build_model_with_cfg(
        timm.models.SwinTransformer,
        "tiny_swin",
        pretrained,
        feature_cfg={"flatten_sequential": True, "out_indices": (0, 1, 2, 3)},
        **small | kwargs,
    )
    return network


# Of the embedded data: samples 0 to 5, a row of padding, and a label that is not known.
TARGET_BK = torch.tensor(
    [[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, -1], [0, 0, 1, 0], [1, 0, 0, 1]], dtype=torch.int8
)


@cache
def _network(name: str, resolution: int, head: str, role: str) -> Network:
    torch.manual_seed(len(name) + resolution + len(role))
    node = ML_DECODER if head == "MlDecoder" else {"_target_": f"{HEADS}.{head}"}
    spec = NetworkSpec(name=name, weights="none")
    network = build_network(spec, num_labels=LABELS, head=node, resolution=resolution, where=f"model.{role}")
    # As if it had been trained: scales, shifts and running statistics that are not 0 and 1, and features of unit size.
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(0.5 + torch.rand(norm.num_features, generator=generator))
            norm.bias.copy_(0.3 * torch.randn(norm.num_features, generator=generator))
            norm.momentum = 1.0
        network.train()(torch.rand(8, 3, SIDE, SIDE, generator=generator))
        for norm in norms:
            norm.momentum = 0.1
    return network


def networks(pair: str, *, head: str = "Linear") -> tuple[Network, Network]:
    """Return student and teacher, both in eval mode; the teacher's parameters could take a gradient."""
    student, of_student, teacher, of_teacher = PAIRS[pair]
    both = (_network(student, of_student, head, "student"), _network(teacher, of_teacher, head, "teacher"))
    return copy.deepcopy(both[0]).eval(), copy.deepcopy(both[1]).eval()


def data_info() -> DataInfo:
    return DataInfo(
        num_samples=SAMPLES,
        label_names=("a", "b", "c", "d"),
        positives_K=torch.tensor([4, 3, 4, 1]),
        max_positives=3,
        batch_size=len(TARGET_BK),
    )


def batch() -> Batch:
    pixels = torch.randint(
        0, 256, (len(TARGET_BK), 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    index_B = torch.arange(len(TARGET_BK))
    return Batch(pixels, TARGET_BK.clone(), index_B, torch.zeros_like(index_B))


def with_padding(real: Batch) -> Batch:
    """Add a row that counts nowhere, although its image and targets would change everything."""
    return Batch(
        torch.cat([real.images_BCHW, torch.full_like(real.images_BCHW[:1], 255)]),
        torch.cat([real.target_BK, torch.ones_like(real.target_BK[:1])]),
        torch.cat([real.index_B, torch.tensor([-1])]),
        torch.cat([real.view_B, torch.tensor([-1])]),
    )


def permuted(real: Batch, order: Tensor) -> Batch:
    return Batch(*(value[order] for value in real))


def make(name: str, **settings: Any) -> Method:
    """Build a method from its YAML file, as a run does."""
    node = OmegaConf.load(ROOT / "conf" / "method" / f"{name}.yaml")
    assert not isinstance(node, list)
    own = {key: value for key, value in node.items() if key not in ("defaults", "weight", "force_softmax")}
    method: Method = build(own | settings, where="method")
    return method


def set_up(name: str, pair: str, *, head: str = "Linear", **settings: Any) -> tuple[Method, Network, Network]:
    """Return a method between two networks, in eval mode, so that a row's loss does not depend on the others'."""
    student, teacher = networks(pair, head=head)
    torch.manual_seed(1)
    method = make(name, **settings)
    student = method.setup(student, teacher, data_info()) or student
    return method.eval(), student.eval(), teacher


def outputs(method: Method, student: Network, teacher: Network, of: Batch) -> tuple[NetOutput, NetOutput]:
    return (
        student(of.images_BCHW, reads=method.student_reads),
        teacher(of.images_BCHW, reads=method.teacher_reads),
    )


def total(method: Method, student: Network, teacher: Network, of: Batch, *, progress: float = 0.0) -> Tensor:
    """Return the sum of a method's losses, under a teacher that is detached, as in training."""
    of_student, of_teacher = outputs(method, student, teacher, of)
    return torch.stack(list(method(of_student, of_teacher.detached(), of, progress).values())).sum()

"""A network leaves, and says the same elsewhere."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks.export import OPSET, export, timm_arguments, timm_state_dict
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network

HEADS = "tutelage.multilabel.networks.heads"
LABELS = ("cat", "dog", "bird")


def make(name: str, *, head: str = "Linear", **settings: float | None) -> Network:
    torch.manual_seed(0)
    spec = NetworkSpec(name=name, weights="none")
    node = {"_target_": f"{HEADS}.{head}"} | settings
    network = build_network(spec, num_labels=len(LABELS), head=node, resolution=64, where="model.student").eval()
    # A step of its own away from the start: running statistics that are not 0 and 1.
    network.train()(images())
    return network.eval()


def images() -> Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(network: Network) -> Tensor:
    shown: Tensor = network(images()).logits_BK
    return shown


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "mobilenetv3_small_050", "tf_efficientnet_lite0", "convnext_atto", "swin_tiny_patch4_window7_224"],
)
def test_plain_timm_loads_the_student_strictly(name: str, tmp_path: Path) -> None:
    network = make(name)
    export(network, tmp_path, label_names=LABELS, thresholds_K=[0.5] * len(LABELS), onnx=False)
    described = json.loads((tmp_path / "network.json").read_text())
    assert described["labels"] == list(LABELS)
    arguments = described["timm"]["create_model"]
    sizes = {"img_size": 64} if name.startswith("swin") else {}
    assert arguments == {"model_name": name, "num_classes": 3} | sizes == timm_arguments(network)
    model = timm.create_model(**arguments).eval()
    model.load_state_dict(load_file(tmp_path / described["timm"]["state_dict"]), strict=True)
    mean, std = torch.tensor(described["mean"])[:, None, None], torch.tensor(described["std"])[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(model((images() - mean) / std), logits(network), rtol=1e-4, atol=1e-5)


def test_other_heads_have_no_place_in_timm(tmp_path: Path) -> None:
    network = make("resnet10t", head="Gmp")
    with pytest.raises(ConfigError, match="head: timm has no place for this head"):
        timm_state_dict(network)
    export(network, tmp_path, label_names=LABELS, thresholds_K=[0.5] * len(LABELS), onnx=False)
    assert [path.name for path in tmp_path.iterdir()] == ["network.json"]


def onnx_agrees(network: Network, folder: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    export(network, folder, label_names=LABELS, thresholds_K=[0.5] * len(LABELS), onnx=True)
    described = json.loads((folder / "network.json").read_text())["onnx"]
    session = onnxruntime.InferenceSession(folder / described["file"])
    (found,) = session.run(["logits_BK"], {"images_BCHW": images().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), logits(network), rtol=0, atol=1e-4)
    assert described["opset"] == OPSET == opset(folder / described["file"])
    assert not network.training


def opset(path: Path) -> int:
    onnx = pytest.importorskip("onnx")
    return int(onnx.load(path).opset_import[0].version)


def test_onnx_agrees(tmp_path: Path) -> None:
    onnx_agrees(make("mobilenetv3_small_050"), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head", "settings"),
    [
        ("tf_efficientnet_lite0", "Linear", {}),
        ("vit_tiny_patch16_224", "Linear", {}),
        ("swin_tiny_patch4_window7_224", "Gmp", {}),
        ("resnet10t", "Csra", {"heads": 4, "weight": 0.1}),
        ("resnet10t", "Lse", {"sharpness": 5.0}),
        (
            "resnet10t",
            "MlDecoder",
            {"groups": None, "channels": 16, "attention_heads": 2, "feedforward": 16, "dropout": 0.1},
        ),
    ],
)
def test_onnx_agrees_for_other_families_and_heads(
    name: str, head: str, settings: dict[str, float | None], tmp_path: Path
) -> None:
    onnx_agrees(make(name, head=head, **settings), tmp_path)

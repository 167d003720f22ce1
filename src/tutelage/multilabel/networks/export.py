"""A trained network leaves: as timm's own state dict, and as ONNX."""

# B batch, K labels, H W picture

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.core.store import write_atomically
from tutelage.multilabel.networks.backbone import creation_options, pretrained_cfg
from tutelage.multilabel.networks.heads import Linear
from tutelage.multilabel.networks.network import Network

# The oldest that torch's exporter writes without converting down.
OPSET = 18
STATE = "timm.safetensors"
ONNX = "network.onnx"
DESCRIPTION = "network.json"


def export(
    network: Network, folder: Path, *, label_names: tuple[str, ...], thresholds_K: list[float], onnx: bool
) -> None:
    """Write a network for use without Tutelage.

    ``network.json`` says how to use the rest: labels and their thresholds, resolution, normalisation, and the
    arguments of ``timm.create_model``. ``timm.safetensors`` (linear head only) loads there strictly and gives the
    same logits, for images that are normalised. ``network.onnx`` takes images in [0, 1] that are not: resolution
    [B, 3, H, W], any B; it gives logits.

    Args:
        network: Trained, on the CPU or not.
        folder: Made where it is missing.
        label_names: In the order of the logits.
        thresholds_K: Probability above which each label is predicted.
        onnx: Write ONNX, too; needs the ``export`` extra.

    Raises:
        ConfigError: The ``export`` extra is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = pretrained_cfg(network.spec.name, where="model.student")
    description: dict[str, Any] = {
        "labels": list(label_names),
        "thresholds": thresholds_K,
        "resolution": network.resolution,
        "mean": described.mean,
        "std": described.std,
    }
    if isinstance(network.head, Linear):
        save_file(timm_state_dict(network), folder / STATE)
        description["timm"] = {"state_dict": STATE, "create_model": timm_arguments(network)}
    if onnx:
        write_onnx(network, folder / ONNX)
        description["onnx"] = {
            "file": ONNX,
            "opset": OPSET,
            "input": "images_BCHW: float in [0, 1], RGB, resized to a square of the resolution, not normalised",
            "output": "logits_BK",
        }
    write_atomically(folder / DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False) + "\n")


def timm_arguments(network: Network) -> dict[str, Any]:
    """Return the arguments of the ``timm.create_model`` that takes :func:`timm_state_dict`."""
    spec = network.spec
    options = creation_options(
        spec.name, resolution=network.resolution, output_stride=spec.output_stride, where="model.student"
    )
    return {"model_name": spec.name, "num_classes": network.shape.num_labels, **options}


def timm_state_dict(network: Network) -> dict[str, Tensor]:
    """Return the weights under timm's own names, classifier and all.

    Raises:
        ConfigError: The head is not linear, or timm gives this network several classifiers.
    """
    name = network.spec.name
    classifiers = pretrained_cfg(name, where="model.student").classifier
    if not isinstance(network.head, Linear) or len(classifiers) != 1:
        raise ConfigError(
            "head", f"timm has no place for this head in {name}", "export it as ONNX, or train with head=linear"
        )
    state = {key: value.detach().cpu().contiguous() for key, value in network.backbone.state_dict().items()}
    classifier = network.head.classifier
    state[f"{classifiers[0]}.weight"] = classifier.weight.detach().cpu().contiguous()
    state[f"{classifiers[0]}.bias"] = classifier.bias.detach().cpu().contiguous()
    return state


def write_onnx(network: Network, path: Path) -> None:
    """Write the whole network, normalisation included, for images of its own resolution.

    Raises:
        ConfigError: The ``export`` extra is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError("export.onnx", f"ONNX needs onnxscript ({error})", "pip install -e '.[export]'") from None
    training = network.training
    example_BCHW = torch.rand(2, 3, network.resolution, network.resolution, device=network.mean_C11.device)
    try:
        program = torch.onnx.export(
            Logits(network).eval(),
            (example_BCHW,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images_BCHW"],
            output_names=["logits_BK"],
            dynamic_shapes=({0: torch.export.Dim("B")},),
            verbose=False,
        )
    finally:
        network.train(training)
    assert program is not None
    program.save(path)


class Logits(nn.Module):
    """The network as a plain function from images to logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits [B, K] of images in [0, 1]."""
        logits_BK: Tensor = self.network(images_BCHW).logits_BK
        return logits_BK

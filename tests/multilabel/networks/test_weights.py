"""Weights from files and the hub, checkpoints with heads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks import backbone
from tutelage.multilabel.networks.backbone import Backbone
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network

LINEAR = {"_target_": "tutelage.multilabel.networks.heads.Linear"}
NAME = "mobilenetv2_035"


def make(*, name: str = NAME, num_labels: int = 3, seed: int = 0, **changes: str) -> Network:
    torch.manual_seed(seed)
    spec = NetworkSpec(**({"name": name, "weights": "none"} | changes))  # type: ignore[arg-type]
    return build_network(spec, num_labels=num_labels, head=LINEAR, resolution=64, where="model.student")


def timms_state(name: str = NAME, **options: int) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return timm.create_model(name, **options).state_dict()


def same(first: Network, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in first.backbone.state_dict().items())


def test_a_file_in_timms_form_is_loaded_without_its_classifier(tmp_path: Path) -> None:
    state = timms_state()
    torch.save(state, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pth")
    for name in ("weights.pth", "weights.safetensors", "wrapped.pth"):
        assert same(make(weights=str(tmp_path / name)), state)


def test_positions_are_fitted_to_another_resolution(tmp_path: Path) -> None:
    state = timms_state("vit_tiny_patch16_224")
    torch.save(state, tmp_path / "vit.pth")
    network = make(name="vit_tiny_patch16_224", weights=str(tmp_path / "vit.pth"))
    assert network.backbone.pos_embed.shape == (1, 1 + 4 * 4, 192)
    torch.testing.assert_close(network.backbone.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


def test_differing_keys_are_named(tmp_path: Path) -> None:
    state = timms_state()
    stem = state.pop("conv_stem.weight")
    torch.save(state | {"stem.weight": stem}, tmp_path / "renamed.pth")
    with pytest.raises(ConfigError, match=r"weights: .*conv_stem\.weight is missing; stem\.weight is unknown"):
        make(weights=str(tmp_path / "renamed.pth"))
    torch.save(state | {"conv_stem.weight": stem[:, :1]}, tmp_path / "grey.pth")
    with pytest.raises(ConfigError, match=r"conv_stem\.weight is \(16, 1, 3, 3\), not \(16, 3, 3, 3\)"):
        make(weights=str(tmp_path / "grey.pth"))
    torch.save(timms_state("resnet10t"), tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"and \d+ more"):
        make(weights=str(tmp_path / "other.pth"))


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(timms_state(), tmp_path / "whole.pth")
    cut = (tmp_path / "whole.pth").read_bytes()[:1000]
    (tmp_path / "cut.pth").write_bytes(cut)
    for name in ("text.pth", "text.safetensors", "list.pth", "cut.pth", "absent.pth"):
        with pytest.raises(ConfigError, match=rf"model\.student\.weights: .*{name}"):
            make(weights=str(tmp_path / name))


def test_an_unreachable_hub_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **options: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(backbone, "create_model", unreachable)
    with pytest.raises(ConfigError) as caught:
        make(weights="imagenet")
    message = str(caught.value)
    assert message.startswith("model.student.weights: cannot get timm's ImageNet weights of mobilenetv2_035")
    assert "model.student.weights=/path/to/mobilenetv2_035.safetensors" in message


def test_the_hubs_own_offline_error_is_caught(tmp_path: Path) -> None:
    """In a process of its own: the hub's client reads its settings when it is imported."""
    code = (
        "from tutelage.multilabel.networks.network import NetworkSpec, build_network\n"
        "spec = NetworkSpec(name='resnet18', weights='imagenet')\n"
        f"build_network(spec, num_labels=3, head={LINEAR!r}, resolution=64, where='model.student')\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "ConfigError: model.student.weights: cannot get timm's ImageNet weights of resnet18" in found.stderr


def test_checkpoints_of_ours_and_of_timm_bring_the_head(tmp_path: Path) -> None:
    trained = make(seed=1)
    lightning = {f"student.{key}": value for key, value in trained.state_dict().items()}
    beside = {"method.projection.weight": torch.zeros(2), "weight.value": torch.zeros(())}
    torch.save({"state_dict": lightning | beside, "epoch": 3}, tmp_path / "best.ckpt")
    timms = {key.removeprefix("backbone."): value for key, value in trained.state_dict().items()}
    timms = {key.replace("head.classifier", "classifier"): value.contiguous() for key, value in timms.items()}
    save_file(timms, tmp_path / "timm.safetensors")
    for name in ("best.ckpt", "timm.safetensors"):
        loaded = make(seed=2, checkpoint=str(tmp_path / name)).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in trained.state_dict().items())


def test_a_checkpoint_asks_the_hub_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = make(seed=1)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    create = backbone.create_model

    def offline(name: str, *, pretrained: bool, num_classes: int) -> Backbone:
        assert not pretrained
        return create(name, pretrained=False, num_classes=num_classes)

    monkeypatch.setattr(backbone, "create_model", offline)
    assert same(make(weights="imagenet", checkpoint=str(tmp_path / "trained.pth")), trained.backbone.state_dict())


def test_a_checkpoint_of_other_labels_is_refused(tmp_path: Path) -> None:
    torch.save(make(num_labels=5).state_dict(), tmp_path / "five.pth")
    with pytest.raises(ConfigError, match=r"model\.student\.checkpoint: .*was trained for 5 labels, the data has 3"):
        make(checkpoint=str(tmp_path / "five.pth"))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(make(name="resnet10t").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"model\.student\.checkpoint: .*does not fit"):
        make(checkpoint=str(tmp_path / "other.pth"))

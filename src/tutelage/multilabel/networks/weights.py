"""Pretrained weights from timm's hub or a local file, and trained networks with a head."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tutelage.core.errors import ConfigError
from tutelage.multilabel.networks.backbone import Backbone, create_backbone, pretrained_cfg

State = dict[str, Tensor]

# What wraps a network's own names in the checkpoints that people keep.
_WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_ema")
_PREFIXES = ("_orig_mod.", "module.", "network.")

# Under which a run keeps its student, beside what its method learns.
_STUDENT = "student."


def load_weights(
    name: str, *, weights: str, resolution: int, output_stride: int | None, drop_path: float = 0, where: str
) -> Backbone:
    """Make a backbone with ``imagenet`` weights, with ``none``, or with those of a file.

    Raises:
        ConfigError: The hub cannot be reached or has none, the file is no state dict, or its keys differ.
    """
    try:
        model = create_backbone(
            name,
            resolution=resolution,
            output_stride=output_stride,
            drop_path=drop_path,
            pretrained=weights == "imagenet",
            where=where,
        )
    except ConfigError:
        raise
    except Exception as error:  # the hub's clients raise errors of many libraries
        if weights != "imagenet":
            raise
        raise ConfigError(
            f"{where}.weights",
            f"cannot get timm's ImageNet weights of {name} ({_first_line(error)})",
            f"without a network give a file that you have, {where}.weights=/path/to/{name}.safetensors "
            f"(or .pth, in timm's form), or start from nothing with {where}.weights=none",
        ) from None
    if weights in ("imagenet", "none"):
        return model
    path = Path(weights)
    place = f"{where}.weights"
    classifier = pretrained_cfg(name, where=where).classifier
    state = without(read_state_dict(path, where=place), classifier)
    if _differences(model.state_dict(), state):
        state = without(_converted(state, model), classifier)
    load_strictly(model, state, where=place, path=path)
    return model


def load_checkpoint(network: nn.Module, checkpoint: str, *, classifier: tuple[str, ...], where: str) -> None:
    """Load a trained network, head and all: one of our checkpoints, or an exported timm state dict.

    Raises:
        ConfigError: The file is no state dict, or its keys or its number of labels differ.
    """
    path = Path(checkpoint)
    place = f"{where}.checkpoint"
    state = read_state_dict(path, where=place)
    if not any(key.startswith("backbone.") for key in state):
        state = _from_timm(state, classifier)
    mine = network.state_dict()
    for key in ("head.classifier.weight", "head.classifier.bias"):
        if key in state and key in mine and len(state[key]) != len(mine[key]):
            raise ConfigError(
                place,
                f"{path} was trained for {len(state[key])} labels, the data has {len(mine[key])}",
                "give a checkpoint that was trained on this data's labels",
            )
    load_strictly(network, state, where=place, path=path)


def read_state_dict(path: Path, *, where: str) -> State:
    """Read a ``.safetensors`` file, or what ``torch.save`` wrote, as plain names and tensors.

    Raises:
        ConfigError: No such file, or no state dict in it.
    """
    if not path.is_file():
        raise ConfigError(where, f"there is no file {path}", "give imagenet, none, or the path of a file")
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError, ValueError) as error:
        raise ConfigError(
            where, f"{path} cannot be read ({_first_line(error)})", "give a state dict as .safetensors or .pth"
        ) from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(
            where, f"{path} holds no state dict", "give names and tensors, as torch.save(model.state_dict())"
        )
    state = dict(content)
    student = {key.removeprefix(_STUDENT): value for key, value in state.items() if key.startswith(_STUDENT)}
    return _unprefixed(student or state)


def load_strictly(module: nn.Module, state: State, *, where: str, path: Path) -> None:
    """Load a state dict; name what differs.

    Raises:
        ConfigError: A key is missing, unknown, or of another shape.
    """
    if differences := _differences(module.state_dict(), state):
        shown = "; ".join(differences[:6])
        more = f"; and {len(differences) - 6} more" if len(differences) > 6 else ""
        raise ConfigError(where, f"{path} does not fit: {shown}{more}", "give the weights of this very network")
    module.load_state_dict(state, strict=True)


def without(state: State, modules: tuple[str, ...]) -> State:
    """Return a state dict without the named modules."""
    prefixes = tuple(f"{name}." for name in modules)
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def _differences(mine: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    # num_batches_tracked is absent from converted files, and only matters where momentum is None.
    missing = [f"{key} is missing" for key in mine if key not in state]
    unknown = [f"{key} is unknown" for key in state if key not in mine]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(mine[key].shape)}"
        for key in mine
        if key in state and state[key].shape != mine[key].shape
    ]
    return missing + unknown + shapes


def _converted(state: State, model: Backbone) -> State:
    """Let timm turn the original authors' names, and positions of another resolution, into its own."""
    module = importlib.import_module(type(model).__module__)
    convert: Callable[[State, Backbone], State] | None = vars(module).get("checkpoint_filter_fn")
    if convert is None:
        return state
    try:
        return dict(convert(state, model))
    except (KeyError, RuntimeError, ValueError, AttributeError):  # not a file of this family at all
        return state


def _from_timm(state: State, classifier: tuple[str, ...]) -> State:
    if len(classifier) != 1:
        return state
    prefix = f"{classifier[0]}."
    return {
        f"head.classifier.{key.removeprefix(prefix)}" if key.startswith(prefix) else f"backbone.{key}": value
        for key, value in state.items()
    }


def _unprefixed(state: State) -> State:
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if state and all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

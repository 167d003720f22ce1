"""Which models can be trained here: those whose layers all attend to everything before them.

Training puts samples end to end into one row, and runs a causal kernel on each. A recurrent or convolutional layer
would carry state from one sample into the next, and an attention that transformers does not hand to us would see its
neighbours. The loss calls the output layer itself, so what happens to logits after it would be left out.
"""

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from tutelage.core.errors import ConfigError

# Transforms of the logits after the head, and the values that change nothing.
LOGIT_TRANSFORMS = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}
HINT = "take a model whose layers all have full attention, such as Qwen2.5, Qwen3, Llama or SmolLM"


def check_support(config: PreTrainedConfig, *, path: str, longest: int) -> None:
    """Refuse a model that packed training or the chunked loss would get wrong. Reads no weights.

    Args:
        config: The model's.
        path: Its name in errors.
        longest: Tokens of the longest sample that it will be trained on.

    Raises:
        ConfigError: Its attention or its logits are not supported.
    """
    text = config.get_text_config()
    values = {name: getattr(text, name, None) for name in (*LOGIT_TRANSFORMS, "layer_types", "sliding_window")}
    for key, neutral in LOGIT_TRANSFORMS.items():
        if values[key] not in (None, neutral):
            raise ConfigError("model.path", f"{path} transforms its logits ({key}), which the loss leaves out", HINT)
    kinds = set(values["layer_types"] or ())
    # Qwen2 keeps a window in its config that it does not use.
    windowed = "sliding_attention" in kinds or (not kinds and getattr(text, "use_sliding_window", True))
    window = values["sliding_window"] if windowed else None
    if window and longest > window:
        raise ConfigError(
            "data.max_length",
            f"{longest} tokens, but {path} attends to the last {window} only (a sliding window)",
            f"set data.max_length={window} or less, or {HINT}",
        )
    others = sorted(kinds - {"full_attention", "sliding_attention"})
    if others:
        raise ConfigError("model.path", f"{path} has layers of {', '.join(others)}, which cannot be packed", HINT)
    _check_positions(text, path=path, longest=longest)
    _check_modules(config, path=path)


def _check_positions(text: PreTrainedConfig, *, path: str, longest: int) -> None:
    """Refuse rotary embeddings whose frequencies depend on the longest sample that is in the row."""
    rope: dict[str, object] = getattr(text, "rope_parameters", None) or {}
    kind = rope.get("rope_type")
    if kind not in ("dynamic", "longrope"):
        return
    original = rope.get("original_max_position_embeddings") or text.max_position_embeddings
    assert isinstance(original, int)
    if longest > original:
        raise ConfigError(
            "data.max_length",
            f"{longest} tokens, but the rotary embedding of {path} ({kind}) changes with the longest sample of a row "
            f"beyond {original}",
            f"set data.max_length={original} or less",
        )


def _check_modules(config: PreTrainedConfig, *, path: str) -> None:
    """Look at the network itself, built without memory: not every config says what its layers are."""
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model = f"{path} ({type(network).__name__})"
    mixers = {type(m).__name__ for m in network.modules() if any(isinstance(part, nn.Conv1d) for part in m.children())}
    if mixers:
        what = f"{model} has convolutional or recurrent layers ({', '.join(sorted(mixers))}), which cannot be packed"
        raise ConfigError("model.path", what, HINT)
    if not network._supports_attention_backend:
        kinds = {type(m).__name__ for m in network.modules() if type(m).__name__.endswith(("Attention", "Mixer"))}
        named = ", ".join(sorted(kinds)) or "unnamed"
        what = f"{model} has an attention of its own ({named}), which takes no kernel for packed rows"
        raise ConfigError("model.path", what, HINT)
    if any(name.endswith("sinks") for name, _ in network.named_parameters()):
        raise ConfigError("model.path", f"{model} has attention sinks, which the packed kernel leaves out", HINT)

"""Whether packing changes what a model computes, asked of the model itself before it is trained."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tutelage.core.errors import RunError
from tutelage.text2sql.model.language_model import LanguageModel
from tutelage.text2sql.training.packing import IGNORED, TokenBatch, excerpt

# The most by which the mean negative log-likelihood of an answer token may differ, in nats, by what is computed in.
BOUNDS = {torch.float64: 1e-4, torch.float32: 1e-2, torch.bfloat16: 0.1, torch.float16: 0.1}
CLEAR = 0.1  # relative difference of hidden states that rounding does not make


def check_packing(model: LanguageModel, batch: TokenBatch) -> None:
    """Compute two samples of a packed batch as they are packed and by themselves, and compare.

    Every process puts the same number of passes through the model, so this also works where weights are spread.

    Args:
        model: Its mode is put back.
        batch: Packed, on the model's device.

    Raises:
        RunError: A layer lets samples see each other, or does not let a branch see its prefix.
    """
    device = batch.input_ids_BT.device
    layouts = [
        part._replace(
            input_ids_BT=part.input_ids_BT.to(device),
            position_ids_BT=part.position_ids_BT.to(device),
            target_BT=part.target_BT.to(device),
        )
        for part in excerpt(batch)
    ]
    training = model.training
    model.eval()
    losses: list[float] = []
    states: list[list[Tensor]] = []
    with torch.no_grad():
        for layout in layouts:
            with _watched(model, layout.target_BT != IGNORED) as found:
                losses.append(float(model(layout)))
            states.append(found)
    model.train(training)
    answers = int((layouts[0].target_BT != IGNORED).sum())
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else model.causal.dtype
    difference = abs(losses[0] - losses[1]) / max(answers, 1)
    if difference <= BOUNDS[dtype]:
        return
    changed = [
        float((packed - alone).norm() / alone.norm()) for packed, alone in zip(states[0], states[1], strict=True)
    ]
    number = next((n for n, change in enumerate(changed) if change > CLEAR), changed.index(max(changed)))
    layer = _layers(model)[number]
    raise RunError(
        "train",
        f"packed, samples have another loss than by themselves ({losses[0]:.4f} and {losses[1]:.4f} over {answers} "
        f"answer tokens): layer {number} ({type(layer).__name__}) does not keep to its sample",
        "set data.packing=false, which computes each sample in a row of its own, or use another model",
    )


def _layers(model: LanguageModel) -> list[nn.Module]:
    names = set(model.causal._no_split_modules or ())  # transformers' names of the classes of decoder layers
    return [module for module in model.causal.modules() if type(module).__name__.removeprefix("FSDP") in names]


@contextmanager
def _watched(model: LanguageModel, answers_BT: Tensor) -> Iterator[list[Tensor]]:
    """Collect what each decoder layer says of the answers' tokens."""
    found: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        hidden_BTH = output if isinstance(output, Tensor) else output[0]
        found.append(hidden_BTH[:, : answers_BT.shape[1]][answers_BT].float())

    handles = [layer.register_forward_hook(keep) for layer in _layers(model)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()

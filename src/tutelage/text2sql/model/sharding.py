"""Weights spread over devices (FSDP2), for models that do not fit one.

No process but the first ever holds a whole model, and the first holds it in its main memory alone: every process
builds the model without memory, takes its share of each weight, and gets it from the first, weight by weight.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from tutelage.text2sql.model.language_model import LanguageModel


def spread(
    model: LanguageModel,
    mesh: DeviceMesh,
    *,
    compute_dtype: torch.dtype | None,
    weights: Callable[[], LanguageModel] | None,
    device: torch.device,
) -> None:
    """Spread a model in place: each decoder layer is gathered when its turn comes, the rest for the whole pass.

    The output layer belongs to the rest, so the chunks of the loss find it whole. Adapters and frozen weights alike
    are spread.

    Args:
        model: With its weights, or on the meta device.
        mesh: Its ``data_parallel`` dimension is used.
        compute_dtype: What weights are gathered and multiplied in; gradients are added up in fp32 in any case. None
            for the weights' own.
        weights: Loads the weights of a model that is on the meta device. Called in the first process alone.
        device: This process's.
    """
    data_parallel = mesh["data_parallel"]
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=torch.float32)
    layers = set(model.causal._no_split_modules or ())  # transformers' names of the classes of decoder layers
    for module in list(model.causal.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=data_parallel, mp_policy=policy)
    fully_shard(model, mesh=data_parallel, mp_policy=policy, reshard_after_forward=False)
    # Answering does not go through forward, but needs the same gathering.
    register_fsdp_forward_method(model, "generate")
    register_fsdp_forward_method(model, "log_probs")
    if weights is not None:
        fill(model, weights() if distributed.get_rank() == 0 else None, device=device)


def fill(model: LanguageModel, source: LanguageModel | None, *, device: torch.device) -> None:
    """Give a sharded model that was built on the meta device its weights.

    Args:
        model: Sharded; the same in every process.
        source: The whole model, in the first process; None in the others.
        device: This process's.
    """
    model.to_empty(device=device)
    model.causal.tie_weights()  # to_empty makes two of a shared weight
    load_whole(model, {} if source is None else source.state_dict())
    known = {} if source is None else dict(source.named_buffers())
    for name, buffer in model.named_buffers():  # those of the rotary embedding are in no state dict
        if source is not None:
            buffer.copy_(known[name])
        distributed.broadcast(buffer, src=0)


def load_whole(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load whole weights, or some of them, into a sharded module.

    Args:
        module: Sharded.
        state: By name, in the first process; what the others give is not looked at.
    """
    _reshard(module)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    set_model_state_dict(module, dict(state), options=options)


def gather_trained(model: LanguageModel) -> dict[str, Any]:
    """Collect the weights that are trained in the first process's main memory; the others get nothing."""
    _reshard(model)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(model, options=options)


def _reshard(module: nn.Module) -> None:
    """Free what answering left gathered: without a backward pass, nothing else does."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()

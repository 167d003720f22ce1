"""Weights spread over devices (FSDP2), for models that do not fit one."""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from tutelage.text2sql.model.language_model import LanguageModel


def shard(model: LanguageModel, mesh: DeviceMesh) -> None:
    """Shard a model in place: each decoder layer is gathered when its turn comes, the rest for the whole pass.

    The output layer belongs to the rest, so the chunks of the loss find it whole.

    Args:
        model: On any device; adapters and frozen weights alike are spread.
        mesh: Its ``data_parallel`` dimension is used.
    """
    data_parallel = mesh["data_parallel"]
    layers = set(model.causal._no_split_modules or ())  # transformers' names of the classes of decoder layers
    for module in list(model.causal.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=data_parallel)
    fully_shard(model, mesh=data_parallel, reshard_after_forward=False)
    # Answering does not go through forward, but needs the same gathering.
    register_fsdp_forward_method(model, "generate")

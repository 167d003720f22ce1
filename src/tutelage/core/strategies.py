"""Lightning's strategies, where ours differ."""

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 whose checkpoints are one file of the trained weights; frozen ones are not even gathered for it."""

    def __init__(self, *, data_parallel_size: int) -> None:
        super().__init__(
            data_parallel_size=data_parallel_size, tensor_parallel_size=1, save_distributed_checkpoint=False
        )

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Collect the trained weights in the first process; the others get nothing."""
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return get_model_state_dict(self.model, options=options)

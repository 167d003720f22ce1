"""What test_text2sql_processes.py runs in one process and in two: a few steps of each strategy, and the result."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from test_text2sql_module import datamodule, module, tiny_folder

from tutelage.core.strategies import ShardedStrategy
from tutelage.text2sql.model.adapters import Full, Lora

if __name__ == "__main__":
    out = Path(sys.argv[1])
    world_size = torch.distributed.is_torchelastic_launched() + 1
    models = tiny_folder(out / "store")
    for strategy in ("ddp", "fsdp") if world_size == 2 else ("auto",):
        for name, adapter in (("full", Full()), ("lora", Lora(rank=4, alpha=8))):
            chosen: Any = strategy
            if strategy == "fsdp":
                chosen = ShardedStrategy(data_parallel_size=2)
            wired = module(models, adapter, empty=strategy == "fsdp")
            trainer = Trainer(
                accelerator="cpu",
                devices=world_size,
                strategy=chosen,
                max_steps=5,
                max_epochs=-1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                num_sanity_val_steps=0,
                gradient_clip_val=1.0,
                accumulate_grad_batches=2,
            )
            trainer.fit(wired, datamodule=datamodule(out))
            trainer.save_checkpoint(out / "last.ckpt")
            if trainer.is_global_zero:
                state = torch.load(out / "last.ckpt", weights_only=True)["state_dict"]
                ends = {"trained": state, "val/ex": trainer.callback_metrics["val/ex"].item()}
                torch.save(ends, out / f"{strategy}-{name}.pt")
            trainer.strategy.barrier()

"""What test_text2sql_processes.py runs in one process and in two: a few steps of each strategy, and the result."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from test_text2sql_module import datamodule, module, tiny_folder

from tutelage.core.strategies import ShardedStrategy
from tutelage.text2sql.inference.generate import Decoding, Request, TransformersEngine
from tutelage.text2sql.model.adapters import Full, Lora
from tutelage.text2sql.model.sharding import gather_trained, load_whole


def train(out: Path, *, world_size: int) -> None:
    """Train with each strategy and adapter, and write down what came of it."""
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
            trainer.fit(wired, datamodule=datamodule(out, shared=True))
            trainer.save_checkpoint(out / "last.ckpt")
            if trainer.is_global_zero:
                state = torch.load(out / "last.ckpt", weights_only=True)["state_dict"]
                ends = {"trained": state, "val/ex": trainer.callback_metrics["val/ex"].item()}
                torch.save(ends, out / f"{strategy}-{name}.pt")
            # One process has all the questions: the others must answer in step with it.
            requests = [Request(str(n), list(range(5, 9 + n))) for n in range(3)] if trainer.is_global_zero else []
            engine = TransformersEngine(wired.model, end_token=2, seed=1)
            texts = engine.generate(requests, Decoding("greedy", 1, 1.0, 1.0, max_new_tokens=6, batch_size=1))
            if strategy == "fsdp":
                load_whole(wired, torch.load(out / "last.ckpt", weights_only=True)["state_dict"])
                state = gather_trained(wired.model)
                if trainer.is_global_zero:
                    wired.model.save_gathered(out / f"saved-{name}", state, dtype=torch.float32)
            if trainer.is_global_zero:
                (out / f"{strategy}-{name}.json").write_text(json.dumps(texts))
            trainer.strategy.barrier()


if __name__ == "__main__":
    train(Path(sys.argv[1]), world_size=2)

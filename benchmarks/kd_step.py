"""Time of a distillation step over its floor.

The floor is what nobody can do without: the student's forward and backward with the task loss and an optimiser
step, plus the teacher's forward without gradient, on ready tensors. Ours is the whole training step of the trainer
that train.py makes, with its settings: method, calibrated weight, logging, guards. Both run in one process, in turns,
and the ratio is the median of the paired repeats. A third step in turn is the floor with the method's loss and without
a trainer, which tells the method's share of the rest from the trainer's.

    python benchmarks/kd_step.py                       # the embedded pair
    python benchmarks/kd_step.py model=tf_efficientnet_lite2_to_tf_efficientnet_lite0 resolution=224 batch=16
    python benchmarks/kd_step.py model=resnet101_to_resnet34 resolution=224 batch=64 precision=bf16-mixed   # on a GPU
    python benchmarks/kd_step.py profile=true          # where the time of our step goes, by function
"""

# B batch, K labels

import cProfile
import json
import platform
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from tutelage.core import config
from tutelage.core.build import build
from tutelage.core.callbacks import NanGuard, StepSeed, TrainTime
from tutelage.core.curves import CurvesLogger
from tutelage.core.run import make_trainer, open_task
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.module import Distillation
from tutelage.multilabel.networks.network import Network, Pair, build_network
from tutelage.multilabel.teacher import Teacher
from tutelage.multilabel.terms import Term, build_terms

ROOT = Path(__file__).resolve().parents[1]
NUM_LABELS = 80


def main() -> None:
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    model, resolution = arguments.get("model", "digits"), int(arguments.get("resolution", 48))
    batch, repeats = int(arguments.get("batch", 32)), int(arguments.get("repeats", 40))
    precision, profile = arguments.get("precision", "32-true"), arguments.get("profile") == "true"
    config.register()
    options = [f"model={model}", "data=digits", f"trainer.precision={precision}", "trainer.progress_bar=false"]
    options += [f"trainer.max_steps={2 * repeats + 10}", "run=unused", "store=unused"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=options)
    if model == "digits":
        torch.set_num_threads(cfg.trainer.threads)  # as a run on it does
    pair: Pair = build(cfg.model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def network(role: str) -> Network:
        spec = replace(pair.teacher if role == "teacher" else pair.student, weights="none")  # speed needs no weights
        head = {"_target_": "tutelage.multilabel.networks.heads.Linear"}
        return build_network(spec, num_labels=NUM_LABELS, head=head, resolution=resolution, where=f"model.{role}")

    module = Distillation(
        network("student"),
        task_loss=build(cfg.loss),
        terms=build_terms(cfg.method, teachers=["teacher"]),
        teachers={"teacher": Teacher(network("teacher"))},
        data=DataInfo(
            num_samples=batch,
            label_names=tuple(str(number) for number in range(NUM_LABELS)),
            positives_K=torch.ones(NUM_LABELS, dtype=torch.int64),
            max_positives=NUM_LABELS,
            batch_size=batch,
        ),
        optim=build(cfg.optim),
    )
    ready = Batch(
        images_BCHW=torch.randint(0, 256, (batch, 3, resolution, resolution), dtype=torch.uint8, device=device),
        target_BK=(torch.rand(batch, NUM_LABELS, device=device) < 0.04).to(torch.int8),
        index_B=torch.arange(batch, device=device),
        view_B=torch.zeros(batch, dtype=torch.int64, device=device),
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairing = Paired(ready)
        callbacks: list[Callback] = [StepSeed(1), NanGuard(folder), TrainTime(), pairing]
        task = open_task(cfg, folder=folder)
        trainer = make_trainer(task, callbacks=callbacks, loggers=[CurvesLogger(folder)])
        profiler = cProfile.Profile() if profile else nullcontext()
        with profiler:
            trainer.fit(module, DataLoader(Endless(ready), batch_size=None))
        if isinstance(profiler, cProfile.Profile):
            pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)
    ratios = [ours / floor for ours, floor in zip(pairing.ours[5:], pairing.floor[5:], strict=True)]
    of_method = [method / floor for method, floor in zip(pairing.method[5:], pairing.floor[5:], strict=True)]
    row = {
        "model": model,
        "resolution": resolution,
        "batch": batch,
        "precision": precision,
        "device": torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"CPU ({platform.machine()}), {torch.get_num_threads()} threads",
        "floor_ms": round(1000 * statistics.median(pairing.floor[5:]), 2),
        "step_ms": round(1000 * statistics.median(pairing.ours[5:]), 2),
        "ratio": round(statistics.median(ratios), 3),
        "method_ratio": round(statistics.median(of_method), 3),
        "repeats": len(ratios),
    }
    print(json.dumps(row))


class Endless(torch.utils.data.IterableDataset[Batch]):
    """The same batch for ever: the loader is measured elsewhere."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.batch


class Paired(Callback):
    """Times each whole step of the trainer, and after it a step of the floor, and one with the method's loss too."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.ours: list[float] = []
        self.floor: list[float] = []
        self.method: list[float] = []
        self.before: float | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, Distillation)
        # From here to here of the next batch is one whole step, everything of the trainer's in it.
        now = _now()
        if self.before is not None:
            self.ours.append(now - self.before)
            started = _now()
            with trainer.precision_plugin.forward_context():
                floor_step(pl_module, trainer.optimizers[0], self.batch)
            self.floor.append(_now() - started)
            started = _now()
            with trainer.precision_plugin.forward_context():
                method_step(pl_module, trainer.optimizers[0], self.batch)
            self.method.append(_now() - started)
        self.before = _now()


def floor_step(module: Distillation, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    """Do what no distillation can leave out."""
    with torch.no_grad():
        module.teachers["teacher"].network(batch.images_BCHW)
    loss: Tensor = module.task_loss(module.student(batch.images_BCHW).logits_BK, batch.target_BK)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


def method_step(module: Distillation, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Do the same with the method's loss, as the module does it."""
    shown = {name: teacher(batch, reads=module.teacher_reads[name]) for name, teacher in module.teachers.items()}
    student_out = module.student(batch.images_BCHW, reads=module.student_reads)
    loss: Tensor = module.task_loss(student_out.logits_BK, batch.target_BK)
    for term in module.terms.values():
        assert isinstance(term, Term)
        weighted, _ = term(loss, student_out, shown[term.teacher], batch, progress=0.5)
        loss = loss + weighted
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()

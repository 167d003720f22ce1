"""Time of a step whose teacher is replayed over a supervised one, a sweep of eight students, and bytes a view.

Each repeat trains three short runs after each other, loader and trainer included: supervised, cam_kd with a live
teacher, cam_kd with a replayed one; ratios are the medians of the paired repeats. A replayed epoch begins with a
comparison with the live teacher, which is timed apart (`check`: its share of an epoch of this data).

    python benchmarks/replay.py                  # all, five minutes; coco_mini is looked for under TUTELAGE_DATA
    python benchmarks/replay.py only=digits,bytes repeats=9

It writes benchmarks/results/replay.json and replay.md; what was not measured this time stays.
"""

# N samples, K labels, H W map

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from tutelage.core import config
from tutelage.core.callbacks import NanGuard, StepSeed
from tutelage.core.curves import CurvesLogger
from tutelage.core.results import markdown_table, write_json
from tutelage.core.run import make_trainer, open_task
from tutelage.multilabel.module import Distillation
from tutelage.multilabel.networks.network import NetworkSpec, build_network
from tutelage.multilabel.replay.callback import Replay
from tutelage.multilabel.replay.codec import Dtype
from tutelage.multilabel.replay.fields import Positives, recorded_fields
from tutelage.multilabel.replay.record import bytes_a_view

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
COCO = Path(os.environ.get("TUTELAGE_DATA", "")) / "coco_mini"
LITE = "model=tf_efficientnet_lite2_to_tf_efficientnet_lite0"
LITE_OPTIONS = [
    "data=coco", f"data.root={COCO}", "data.workers=1", "augment=crop_flip",
    LITE, "model.teacher.weights=none", "model.student.weights=none",
]  # fmt: skip
SETTINGS: dict[str, tuple[list[str], int]] = {  # options, and steps that are timed
    "digits": ([], 60),
    "lite_224": ([*LITE_OPTIONS, "data.resolution=224", "data.batch_size=8"], 10),
    "lite_128": ([*LITE_OPTIONS, "data.resolution=128", "data.batch_size=16"], 10),
}
WARMUP = 3  # steps, at a run's start; a replayed one compares in the first of them
STUDENTS = 8


def main() -> None:
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    wanted = arguments.get("only", ",".join([*SETTINGS, "sweep", "bytes"])).split(",")
    repeats = int(arguments.get("repeats", 5))
    config.register()
    torch.set_num_threads(min(torch.get_num_threads(), os.cpu_count() or 1))
    path = RESULTS / "replay.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"steps": {}, "sweep": None, "bytes": []}
    for name in wanted:
        with tempfile.TemporaryDirectory() as scratch:
            if name == "sweep":
                found["sweep"] = sweep(Path(scratch))
            elif name == "bytes":
                found["bytes"] = sizes()
            else:
                found["steps"][name] = steps(Path(scratch), *SETTINGS[name], repeats=repeats)
        write_json(path, found)
        (RESULTS / "replay.md").write_text(page(found))
        print(json.dumps({name: found.get(name) or found["steps"][name]}))


def steps(scratch: Path, options: list[str], count: int, *, repeats: int) -> dict[str, Any]:
    """Time steps of the three kinds, in turns."""
    length = ["trainer.max_epochs=1", f"trainer.max_steps={count + WARMUP}"]
    kinds = {
        "supervised": ["method=supervised"],
        "live": ["method=cam_kd", "teacher.replay=off"],
        "replayed": ["method=cam_kd", "teacher.replay=require"],
    }
    teacher = random_teacher(scratch, options)
    run(scratch, [*options, *length, *kinds["replayed"], teacher])  # records
    times: dict[str, list[float]] = {name: [] for name in kinds}
    checks = []
    for _ in range(repeats):
        for name, kind in kinds.items():
            timed = run(scratch, [*options, *length, *kind, teacher])
            times[name].append(timed.step_s)
            if name == "replayed":
                checks.append(timed.teacher_s / (timed.epoch_steps * timed.step_s))
    ms = {f"{name}_ms": round(1000 * statistics.median(values), 2) for name, values in times.items()}
    ratios = {
        f"{name}_over_supervised": round(
            statistics.median(a / b for a, b in zip(times[name], times["supervised"], strict=True)), 3
        )
        for name in ("live", "replayed")
    }
    return {**ms, **ratios, "check": round(statistics.median(checks), 4), "repeats": repeats, "device": device()}


def sweep(scratch: Path) -> dict[str, Any]:
    """Time eight students of one teacher, of which the first records, and what they may take at most."""
    options = ["data.num_train=1024", "trainer.max_epochs=2", "augment=flip"]
    teacher = random_teacher(scratch, options)
    run(scratch, [*options, "method=supervised", teacher])  # kernels are chosen, files are read
    supervised, replayed = [], []
    for seed in range(1, STUDENTS + 1):
        supervised.append(run(scratch, [*options, "method=supervised", f"seed={seed}", teacher]).fit_s)
        replayed.append(run(scratch, [*options, "teacher.replay=require", f"seed={seed}", teacher]).fit_s)
    one_pass = teacher_pass(scratch, [*options, teacher])
    at_most = one_pass + 1.10 * sum(supervised)
    return {
        "students": STUDENTS,
        "eight_replayed_s": round(sum(replayed), 2),
        "eight_supervised_s": round(sum(supervised), 2),
        "teacher_pass_s": round(one_pass, 2),
        "at_most_s": round(at_most, 2),
        "ratio": round(sum(replayed) / at_most, 3),
        "device": device(),
    }


class Timed(Callback):
    """Times a run's fit, and its steps after the first few, from one's start to the next one's."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.fit_s = self.teacher_s = 0.0
        self.epoch_steps = 0

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        timed = self.starts[WARMUP:]
        return (timed[-1] - timed[0]) / (len(timed) - 1)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.fit_s = -now()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.starts.append(now())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.fit_s += now()
        assert isinstance(trainer.num_training_batches, int)
        self.epoch_steps = trainer.num_training_batches


def run(scratch: Path, options: list[str]) -> Timed:
    """Train one run, without validation, test and report."""
    task, module, datamodule = prepared(scratch, options)
    timed = Timed()
    own = task.callbacks()
    callbacks: list[Callback] = [StepSeed(1), NanGuard(scratch), timed, *own]
    trainer = make_trainer(task, callbacks=callbacks, loggers=[CurvesLogger(scratch)])
    trainer.limit_val_batches = 0
    trainer.fit(module, datamodule=datamodule)
    for replay in (each for each in own if isinstance(each, Replay)):  # seconds that a live batch takes
        timed.teacher_s = sum(each.live_s for each in replay.teachers.values()) * task.loading.batch_size
    return timed


def prepared(scratch: Path, options: list[str]) -> tuple[Any, Distillation, Any]:
    """Compose a run and make its parts."""
    base = [f"run={scratch / 'run'}", f"store={scratch / 'store'}", "trainer.progress_bar=false"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides=[*base, "trainer.check_val_every_n_epoch=99", *options])
    task: Any = open_task(cfg, folder=scratch / "run")
    task.prepare()
    seed_everything(cfg.seed, verbose=False)
    datamodule = task.datamodule()
    return task, task.module(datamodule), datamodule


def random_teacher(scratch: Path, options: list[str]) -> str:
    """Keep a teacher with random weights, which is as fast as any, and return the option that names it."""
    task, _, _ = prepared(scratch, [*options, "method=supervised"])
    spec: NetworkSpec = task.pair.teacher
    network = build_network(
        spec,
        num_labels=len(task.source.label_names),
        head={"_target_": "tutelage.multilabel.networks.heads.Linear"},
        resolution=task.loading.resolution,
        where="model.teacher",
    )
    path = scratch / "teacher.pth"
    torch.save(network.state_dict(), path)
    return f"model.teacher.checkpoint={path}"


def teacher_pass(scratch: Path, options: list[str]) -> float:
    """Time what a live teacher needs for all views of all pictures, without the loader."""
    _, module, datamodule = prepared(scratch, [*options, "teacher.replay=off"])
    (teacher,) = module.teachers.values()
    teacher.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    loader = datamodule.train_dataloader()
    seconds = 0.0
    for _ in range(2):
        for batch in loader:
            started = now()
            teacher(batch, reads=module.teacher_reads["teacher"])
            seconds += now() - started
    return seconds


def sizes() -> list[dict[str, Any]]:
    """Return what a picture takes in one view, of 7×7 maps, with 2.9 present labels as in COCO."""
    rows = []
    for num_labels in (20, 80, 9605):
        targets_NK = np.zeros((1000, num_labels), np.int8)
        random = np.random.default_rng(0)
        for row in targets_NK:
            row[random.choice(num_labels, 1 + random.poisson(1.9), replace=False)] = 1
        units = {
            "logits_BK": torch.zeros(1, num_labels),
            "positive_cams": torch.zeros(1, 7, 7),
            "cams_BKHW": torch.zeros(1, num_labels, 7, 7),
        }
        row: dict[str, Any] = {"labels": num_labels}
        dtypes: tuple[Dtype, ...] = ("float16", "uint8")
        for name, unit in units.items():
            for dtype in dtypes if name != "logits_BK" else dtypes[:1]:
                fields = recorded_fields({name: unit}, Positives(targets_NK), dtype=dtype)
                row[f"{name} {dtype}"] = round(bytes_a_view(fields) / len(targets_NK))
        rows.append(row)
    return rows


def page(found: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    parts = ["`python benchmarks/replay.py`; a step of `cam_kd` includes the loader and the trainer.\n"]
    if found["steps"]:
        columns = ["setting", *next(iter(found["steps"].values()))]
        rows = [[name, *map(str, row.values())] for name, row in found["steps"].items()]
        parts.append(markdown_table(columns, rows))
    if found["sweep"] is not None:
        parts.append(
            f"A sweep of {STUDENTS} students, of which the first records: at most one teacher pass and "
            f"{STUDENTS} × 1.10 supervised runs were asked for.\n"
        )
        parts.append(markdown_table(list(found["sweep"]), [list(map(str, found["sweep"].values()))]))
    if found["bytes"]:
        parts.append("Bytes that one view of a picture takes, 7×7 maps, 2.9 present labels, checksums included.\n")
        rows = [list(map(str, row.values())) for row in found["bytes"]]
        parts.append(markdown_table(list(found["bytes"][0]), rows))
    return "\n".join(parts)


def device() -> str:
    """Name what it ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads, torch {torch.__version__}"


def now() -> float:
    """Return the time when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()

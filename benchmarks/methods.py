"""What each distillation method costs over supervision with the same teacher forward.

Both steps run in one process in turns: the student's forward, the losses, backward and the optimiser, and the
teacher's forward before. With ``supervised`` the teacher shows nothing that a method would read. The ratio is the
median of paired repeats. Time is that of the clock on a GPU, and on a CPU that of the processor, which other processes
disturb less. Memory on a GPU is the peak that was allocated, on a CPU what autograd keeps for the backward.

    python benchmarks/methods.py                         # all methods: results/methods.json and .md
    python benchmarks/methods.py methods=cam_kd,mld      # these rows of the same table, if the setting is its
    python benchmarks/methods.py maps=true               # cam_kd with 20 to 9,605 labels: results/methods_maps.*
"""

# B batch, K labels

import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.core.build import build
from tutelage.multilabel.data.source import Batch
from tutelage.multilabel.losses import Bce
from tutelage.multilabel.methods.catalog import method_names, own_settings
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.supervised import Supervised
from tutelage.multilabel.module import set_up
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network
from tutelage.multilabel.networks.output import NetOutput
from tutelage.multilabel.teacher import Teacher
from tutelage.multilabel.terms import TermSpec

RESULTS = Path(__file__).parent / "results"
POSITIVES = 3  # of an image, as in COCO


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is run.

    Attributes:
        student: timm's name.
        teacher: timm's name.
        resolution: Of the images.
        batch: Images of a step.
        labels: K.
        repeats: Pairs of steps.
        head: Of both networks.
    """

    student: str = "tf_efficientnet_lite0"
    teacher: str = "resnet50"
    resolution: int = 96
    batch: int = 8
    labels: int = 80
    repeats: int = 9
    head: str = "Linear"


def main() -> None:
    arguments: dict[str, Any] = dict(argument.split("=", 1) for argument in sys.argv[1:])
    maps, chosen = arguments.pop("maps", "false") == "true", arguments.pop("methods", "")
    setting = Setting(**{key: type(getattr(Setting, key))(value) for key, value in arguments.items()})
    if maps:
        rows = [
            {"labels": labels, "support": support} | measure("cam_kd", setting, labels=labels, support=support)
            for labels in (20, 80, 1000, 9605)
            for support in ("all", "positives")
        ]
    else:
        names = chosen.split(",") if chosen else [name for name in method_names() if name != "supervised"]
        rows = [{"method": name} | measure(name, setting) for name in names]
    name = "methods_maps" if maps else "methods"
    about = vars(setting) | {"device": device_name(), "torch": torch.__version__}
    print(markdown(about, rows))
    if chosen:
        before = json.loads((RESULTS / f"{name}.json").read_text())
        if before["setting"] != about:
            return
        measured = {row["method"]: row for row in rows}
        rows = [measured.get(row["method"], row) for row in before["rows"]]
    (RESULTS / f"{name}.json").write_text(json.dumps({"setting": about, "rows": rows}, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown(about, rows))


def measure(name: str, setting: Setting, *, labels: int | None = None, **changes: Any) -> dict[str, Any]:
    """Return the ratios of time and memory of one method, and its floor's time."""
    num_labels = setting.labels if labels is None else labels
    steps = [Step(make(name, **changes), setting, num_labels), Step(Supervised(), setting, num_labels)]
    steps[1].teacher = steps[0].teacher
    times: list[list[float]] = [[], []]
    for repeat in range(setting.repeats + 3):
        for which in (0, 1) if repeat % 2 else (1, 0):
            times[which].append(steps[which].timed())
    pairs = list(zip(times[0][3:], times[1][3:], strict=True))
    memory = [step.memory() for step in steps]
    row = {
        "time": round(statistics.median(ours / floor for ours, floor in pairs), 3),
        "memory": round(memory[0] / memory[1], 3),
        "floor_ms": round(1000 * statistics.median(floor for _, floor in pairs), 1),
        "floor_mib": round(memory[1] / 2**20, 1),
    }
    print(name, changes, num_labels, row, file=sys.stderr)
    return row


def make(name: str, **changes: Any) -> Method:
    method: Method = build(own_settings(name) | changes, where="method")
    return method


class Step:
    """One training step under a method."""

    def __init__(self, method: Method, setting: Setting, num_labels: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)

        def network(name: str, where: str) -> Network:
            return build_network(
                NetworkSpec(name=name, weights="none"),  # speed needs no weights
                num_labels=num_labels,
                head={"_target_": f"tutelage.multilabel.networks.heads.{setting.head}"},
                resolution=setting.resolution,
                where=where,
            ).to(self.device)

        self.method = method.to(self.device)
        self.student, self.teacher = network(setting.student, "student"), Teacher(network(setting.teacher, "teacher"))
        info = DataInfo(
            num_samples=1000,
            label_names=tuple(map(str, range(num_labels))),
            positives_K=torch.full((num_labels,), 10),
            max_positives=2 * POSITIVES,
            batch_size=setting.batch,
        )
        if self.method.teacher_reads:
            self.student = set_up(TermSpec(method=self.method), self.student, self.teacher, info)
        self.method.to(self.device)
        target_BK = torch.zeros(setting.batch, num_labels, dtype=torch.int8)
        target_BK.scatter_(1, torch.rand(setting.batch, num_labels).topk(POSITIVES, dim=1).indices, 1)
        images = torch.randint(0, 256, (setting.batch, 3, setting.resolution, setting.resolution), dtype=torch.uint8)
        rows_B = torch.arange(setting.batch)
        made = Batch(images, target_BK, index_B=rows_B, view_B=torch.zeros_like(rows_B))
        self.batch = Batch(*(value.to(self.device) for value in made))
        if self.method.calibrates:
            with torch.no_grad():
                shown = self.teacher(self.batch, reads=self.method.teacher_reads)
                self.method.calibrate([(shown, self.batch)])
        self.task_loss = Bce(reduction="mean")
        parameters = [*self.student.parameters(), *self.method.parameters()]
        self.optimizer = torch.optim.SGD([p for p in parameters if p.requires_grad], lr=1e-4)

    def loss(self) -> Tensor:
        teacher: NetOutput = self.teacher(self.batch, reads=self.method.teacher_reads)
        student: NetOutput = self.student(self.batch.images_BCHW, reads=self.method.student_reads)
        loss: Tensor = self.task_loss(student.logits_BK, self.batch.target_BK)
        if self.method.teacher_reads:
            loss = loss + torch.stack(list(self.method(student, teacher.detached(), self.batch, 0.5).values())).sum()
        return loss

    def timed(self) -> float:
        started = self._now()
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()
        return self._now() - started

    def memory(self) -> int:
        """Return bytes: the peak on a GPU, what is kept for the backward on a CPU."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.timed()
            return torch.cuda.max_memory_allocated()
        with kept_for_backward() as kept:
            self.loss()
        return sum(kept.values())

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


@contextmanager
def kept_for_backward() -> Iterator[dict[int, int]]:
    """Collect the bytes of each storage that autograd keeps."""
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield kept


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"


def markdown(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    pair = f"{about['teacher']} → {about['student']}, {about['resolution']} pixels, batch {about['batch']}"
    lines = [
        f"`python benchmarks/methods.py …`: {pair}; {about['device']}, torch {about['torch']}.",
        f"Over `supervised` with the same teacher forward; median of {about['repeats']} paired steps.",
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|" + "---|" * len(rows[0]),
        *("| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

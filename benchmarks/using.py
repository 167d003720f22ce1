"""What using a trained model costs beside the model itself: a session, the page, a folder of pictures.

python benchmarks/using.py [repeats=3] [pictures=256]     # writes benchmarks/results/using.{json,md}

Needs a machine that is otherwise idle. Weights are random, since speed does not depend on them: generation is real and
timed, and its text is then replaced by a query, so that all that follows an answer is done as well.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tutelage.core.store import Store
from tutelage.multilabel.networks.network import Network, NetworkSpec, build_network
from tutelage.multilabel.predict.command import PredictSettings, predict
from tutelage.text2sql.data.flights import Flights
from tutelage.text2sql.database.executor import Executor
from tutelage.text2sql.inference.answer import Answerer, Inference
from tutelage.text2sql.inference.generate import Decoding, Request, TransformersEngine
from tutelage.text2sql.inference.session import LIMITS, LoadedRun, Session
from tutelage.text2sql.inference.web import make_app
from tutelage.text2sql.model.adapters import Full
from tutelage.text2sql.model.language_model import Pretrained, load
from tutelage.text2sql.model.tiny import Tiny
from tutelage.text2sql.prompts.brief import Brief
from tutelage.text2sql.prompts.chat import end_token

RESULTS = Path(__file__).parent / "results"
HEAD = {"_target_": "tutelage.multilabel.networks.heads.Linear"}
NETWORK, SIDE, LABELS, SHOWN, BATCH = "resnet34", 224, 80, 3, 32  # COCO shows three labels a picture
QUESTIONS = ["How many flights left JFK late?", "Which airline has the most planes?", "How hot was it in July?"]
TARGETS = {
    "a session's later answers, beside generation and one run of the query": ("ms", 50.0, "at most"),
    "the page's first answer with tiny": ("s", 2.0, "at most"),
    "predict.py over the network alone": ("", 0.9, "at least"),
    "predict.py cams=true over the network alone": ("", 0.5, "at least"),
}


class TimedEngine:
    """Generates for real, adds up how long that took, and then says a query."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine, self.seconds = engine, 0.0

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[list[str]]:
        started = time.perf_counter()
        self.engine.generate(requests, decoding)
        self.seconds += time.perf_counter() - started
        return [["```sql\nSELECT carrier, count(*) FROM flights GROUP BY carrier\n```"] for _ in requests]


def open_tiny(folder: Path) -> tuple[LoadedRun, TimedEngine]:
    """The tiny model of conf/model/tiny.yaml on the embedded database."""
    store = Store(folder / "store")
    source = Flights(store=str(folder / "store"))
    tiny = Tiny(vocabulary=2048, hidden_size=128, layers=4, heads=4, context=1024)
    path = tiny.folder(store, texts=QUESTIONS, seed=1)
    model = load(Pretrained(str(path)), adapter=Full(), seed=1).eval()
    engine = TimedEngine(TransformersEngine(model, end_token=end_token(model.tokenizer, "chatml"), seed=1))
    answerer = Answerer(
        source,
        prompt=Brief(template="chatml", comments=False, samples=0, max_values=2, max_tokens=512),
        inference=Inference("transformers", "greedy", 1, 1.0, 1.0, "first", 0, max_new_tokens=96, batch_size=1),
        executor=Executor(workers=0, limits=LIMITS),
        store=store,
    )
    return LoadedRun(model, model.tokenizer, tiny.context, engine, answerer), engine


def answers(folder: Path) -> tuple[float, float]:
    """Milliseconds of a later answer beside its generation and its query, and seconds to the page's first answer."""
    from fastapi.testclient import TestClient

    run, engine = open_tiny(folder)
    with Executor(workers=1, limits=LIMITS) as executor:
        session = Session(run, source=run.answerer.source, db_id="flights", executor=executor)
        client = TestClient(make_app(session, token=None), base_url="http://127.0.0.1")
        started = time.perf_counter()
        assert client.get("/").status_code == 200
        answer = client.post("/api/ask", json={"question": QUESTIONS[0], "ticket": "first"})
        first = time.perf_counter() - started
        assert answer.status_code == 200, answer.text
        beside = []
        for question in QUESTIONS[1:]:
            engine.seconds = 0.0
            started = time.perf_counter()
            reply = session.ask(question)
            beside.append(time.perf_counter() - started - engine.seconds - reply.result.seconds)
    run.answerer.executor.close()
    return 1000 * statistics.fmean(beside), first


def write_pictures(folder: Path, count: int) -> None:
    """Write JPEG files of the size of COCO's, smooth as photographs are: noise would take longer to decode."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, size=(24, 32, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{number:04}.jpg", quality=90)


def write_run(folder: Path) -> Network:
    """A finished run as training leaves it, whose student sees three labels in every picture."""
    network = build_network(
        NetworkSpec(name=NETWORK, weights="none"), num_labels=LABELS, head=HEAD, resolution=SIDE, where="model.student"
    ).eval()
    with torch.no_grad():
        bias = network.get_parameter("head.classifier.bias")
        bias.fill_(-9.0)
        bias[:SHOWN] = 9.0
    spec = {"_target_": "tutelage.multilabel.networks.network.NetworkSpec", "name": NETWORK, "weights": "none"}
    config = {
        "task": {"_target_": "tutelage.multilabel.task.MultilabelTask"},
        "data": {"resolution": SIDE},
        "head": HEAD,
        "model": {"_target_": "tutelage.multilabel.networks.network.Pair", "teacher": spec, "student": spec},
    }
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
    (folder / "metrics.json").write_text("{}")
    (folder / "manifest.json").write_text(json.dumps({"labels": [f"label {k}" for k in range(LABELS)]}))
    state = {f"student.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "best.ckpt")
    return network


def alone(network: Network, count: int) -> float:
    """Pictures a second of the network on tensors that are ready."""
    pixels = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    with torch.no_grad():
        network(pixels)
        started = time.perf_counter()
        for _ in range(count // BATCH):
            network(pixels)
    return count / (time.perf_counter() - started)


def predicted(run: Path, pictures: Path, out: Path, count: int, *, cams: bool) -> float:
    """Pictures a second of predict.py, without the start of Python: reading, classifying, and writing all files."""
    started = time.perf_counter()
    predict(PredictSettings(run=run, images=str(pictures), out=out, cams=cams, batch=BATCH, sheet=0))
    return count / (time.perf_counter() - started)


def main() -> None:
    arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
    repeats, count = int(arguments.get("repeats", 3)), int(arguments.get("pictures", 256))
    out = Path(arguments.get("out", RESULTS))
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    found: dict[str, list[float]] = {name: [] for name in TARGETS}
    speeds: dict[str, list[float]] = {"network": [], "predict": [], "cams": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "photos", count)
        network = write_run(folder / "run")
        for repeat in range(repeats):
            beside, first = answers(folder / "text2sql")
            speeds["network"].append(alone(network, count))
            for kind in ("predict", "cams"):
                place = folder / f"{kind}-{repeat}"
                speed = predicted(folder / "run", folder / "photos", place, count, cams=kind == "cams")
                speeds[kind].append(speed)
            ratios = [speeds[kind][-1] / speeds["network"][-1] for kind in ("predict", "cams")]
            for values, value in zip(found.values(), (beside, first, *ratios), strict=True):
                values.append(value)
    machine = f"{threads}-core {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    rows = []
    for what, values in found.items():
        unit, target, side = TARGETS[what]
        rows.append({"what": what, "median": statistics.median(values), "all": values, "unit": unit, "target": target,
                     "side": side})  # fmt: skip
    told = {"machine": machine, "repeats": repeats, "pictures": count, "network": NETWORK,
            "pictures_a_second": speeds, "rows": rows,
            "versions": {name: version(name) for name in ("torch", "timm", "transformers")}}  # fmt: skip
    out.mkdir(exist_ok=True)
    (out / "using.json").write_text(json.dumps(told, indent=2) + "\n")
    lines = [
        f"`python benchmarks/using.py` on a {machine}; medians of {repeats} repeats in turns. Pictures: {count} JPEG "
        f"files of 640 × 480, {NETWORK} at {SIDE}, {SHOWN} of {LABELS} labels in each; alone it sees "
        f"{statistics.median(speeds['network']):.1f} a second.",
        "",
        "| | found | target |",
        "|---|---|---|",
        *(
            f"| {row['what']} | {row['median']:.3g} {row['unit']} | {row['side']} {row['target']:g} {row['unit']} |"
            for row in rows
        ),
    ]
    (out / "using.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""Images a second of the loader alone, at 224 pixels, beside a plain PIL + torchvision v1 pipeline.

    python benchmarks/loader.py --data-root ../shared/data

The plain pipeline is what most training scripts do: `Image.open(...).convert("RGB")`, torchvision v1 transforms on PIL
images, ToTensor, Normalize, the default collate. Ours hands out uint8, since each network normalises for itself on
its device; so that the comparison is fair, a second row normalises our batches too, in the training process. Same
files, cores, workers and batch size; rounds are interleaved, each ratio is of neighbours in a round, and medians are
reported. On a machine that has other work, --cpu-time counts seconds of CPU in one process instead of wall clock.
Decoding by itself is measured in one thread. Writes benchmarks/results/loader.{json,md}.

    python benchmarks/loader.py crops --data-root ../shared/data

measures ours alone with 1, 2 and 4 crops per decode, and writes benchmarks/results/loader_crops.{json,md}.
"""

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.io import ImageReadMode, decode_image

from tutelage.multilabel.data.coco import Coco
from tutelage.multilabel.data.datamodule import LoaderConfig, MultilabelDataModule
from tutelage.multilabel.data.transforms import Augment

RESULTS = Path(__file__).parent / "results"
RESOLUTION, BATCH_SIZE = 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TARGET = 1.3
CROPS, CROPS_TARGET = (1, 2, 4), 1.5  # at 4 crops over 1

RECIPES = {
    "resize + flip": Augment(flip=True),
    "resize + Cutout + RandAugment": Augment(cutout=0.5, rand_augment_ops=2),
}
CROP_RECIPES = {**RECIPES, "crop + flip": Augment(crop_scale=(0.7, 1.0), flip=True)}


# ---- the plain pipeline -------------------------------------------------------------------------------------------


class PlainDataset(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, files: list[Path], targets: np.ndarray, transform: Callable[[Image.Image], Tensor]) -> None:
        self.files, self.targets, self.transform = files, targets, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.files[index]) as picture:
            image = self.transform(picture.convert("RGB"))
        return image, torch.from_numpy(self.targets[index]).float()


class PlainCutout:
    def __call__(self, picture: Image.Image) -> Image.Image:
        size, half = picture.width, picture.width // 4
        y, x = np.random.randint(size, size=2)  # noqa: NPY002
        box = [max(x - half, 0), max(y - half, 0), min(x + half, size), min(y + half, size)]
        picture.paste(tuple(np.random.randint(256, size=3).tolist()), box)  # noqa: NPY002
        return picture


def plain_transform(recipe: str) -> Callable[[Image.Image], Tensor]:
    random = [v1.RandomHorizontalFlip()] if "flip" in recipe else [PlainCutout(), v1.RandAugment()]
    return v1.Compose([v1.Resize((RESOLUTION, RESOLUTION)), *random, v1.ToTensor(), v1.Normalize(MEAN, STD)])


# ---- measuring ----------------------------------------------------------------------------------------------------


def images_a_second(batches: Iterable[Any], clock: Callable[[], float], *, normalise: bool = False) -> float:
    mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (MEAN, STD))
    start, count = clock(), 0
    for batch in batches:
        images = batch[0]
        if normalise:
            images = images.float().sub_(mean).div_(std)
        count += len(images)
    return count / (clock() - start)


def measure_recipe(recipe: str, source: Coco, root: Path, rounds: int, *, cpu_time: bool) -> dict[str, Any]:
    augment, workers = RECIPES[recipe], 0 if cpu_time else 2
    split = source.split("train")
    files = [root / "train2017" / f"{int(sample):012}.jpg" for sample in split.ids]
    plain = DataLoader(
        PlainDataset(files, split.targets_NK, plain_transform(recipe)),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )

    def ours(cache: str) -> Any:
        loading = LoaderConfig(resolution=RESOLUTION, batch_size=BATCH_SIZE, workers=workers, cache=cache)
        return MultilabelDataModule(source, augment=augment, loading=loading, seed=0).train_dataloader()

    decoded, cached = ours("none"), ours("memory")
    clock = time.process_time if cpu_time else time.perf_counter
    runs: dict[str, Callable[[], float]] = {
        "plain": lambda: images_a_second(plain, clock),
        "ours": lambda: images_a_second(decoded, clock),
        "ours, normalised": lambda: images_a_second(decoded, clock, normalise=True),
        "ours, cache=memory": lambda: images_a_second(cached, clock),
        "ours, cache=memory, normalised": lambda: images_a_second(cached, clock, normalise=True),
    }
    measured = [{name: run() for name, run in runs.items()} for _ in range(rounds + 1)][1:]  # the first warms up
    return {
        name: {
            "images_per_s": round(median(r[name] for r in measured)),
            "ratio": round(median(r[name] / r["plain"] for r in measured), 2),
            "ratios": [round(r[name] / r["plain"], 2) for r in measured],
        }
        for name in runs
    }


def measure_crops(recipe: str, source: Coco, rounds: int, *, cpu_time: bool) -> dict[str, Any]:
    """Images a second by the number of crops per decode; a round takes each once."""
    clock = time.process_time if cpu_time else time.perf_counter
    measured = []
    for _ in range(rounds + 1):
        round_ = {}
        for crops in CROPS:
            loading = LoaderConfig(
                resolution=RESOLUTION,
                batch_size=BATCH_SIZE,
                workers=0 if cpu_time else 2,
                crops_per_decode=crops,
            )
            data = MultilabelDataModule(source, augment=CROP_RECIPES[recipe], loading=loading, seed=0)
            round_[crops] = images_a_second(data.train_dataloader(), clock)
        measured.append(round_)
    measured = measured[1:]  # the first warms up
    return {
        str(crops): {
            "images_per_s": round(median(r[crops] for r in measured)),
            "ratio": round(median(r[crops] / r[1] for r in measured), 2),
            "ratios": [round(r[crops] / r[1], 2) for r in measured],
        }
        for crops in CROPS
    }


def measure_decoding(root: Path, rounds: int) -> dict[str, float]:
    """Milliseconds a picture, in one thread, from bytes to uint8 pixels at the full size."""
    contents = [path.read_bytes() for path in sorted((root / "val2017").glob("*.jpg"))[:100]]

    def torchvision_io(content: bytes) -> Tensor:
        return decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB, True)

    def pil(content: bytes) -> Tensor:
        return torch.from_numpy(np.array(Image.open(io.BytesIO(content)).convert("RGB")))

    def pil_draft(content: bytes) -> Tensor:
        picture = Image.open(io.BytesIO(content))
        picture.draft("RGB", (RESOLUTION, RESOLUTION))  # decodes at 1/2, 1/4 or 1/8 where that is large enough
        return torch.from_numpy(np.array(picture.convert("RGB")))

    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for decode in (torchvision_io, pil, pil_draft):
            start = time.process_time()
            for content in contents:
                decode(content)
            found.setdefault(decode.__name__, []).append((time.process_time() - start) / len(contents) * 1e3)
    return {name: round(median(times), 3) for name, times in found.items()}


def setting(results: dict[str, Any]) -> str:
    return (
        f"{results['images']} pictures of coco_mini at {RESOLUTION}, {results['measured']}, batch {BATCH_SIZE}; "
        f"{results['machine']}, load {results['load']:.1f} before the start. "
        f"Medians of {results['rounds']} interleaved rounds"
    )


def report_crops(results: dict[str, Any]) -> str:
    lines = ["# Crops per decode", "", f"{setting(results)}; target {CROPS_TARGET} × at {CROPS[-1]} crops."]
    for recipe, rows in results["recipes"].items():
        lines += ["", f"## {recipe}", "", "| crops per decode | images/s | × one |", "|---|---|---|"]
        lines += [f"| {crops} | {row['images_per_s']} | {row['ratio']:.2f} |" for crops, row in rows.items()]
    return "\n".join([*lines, ""])


def report(results: dict[str, Any]) -> str:
    lines = ["# Loader alone", "", f"{setting(results)}; target {TARGET} × plain."]
    for recipe, rows in results["recipes"].items():
        lines += ["", f"## {recipe}", "", "| pipeline | images/s | × plain |", "|---|---|---|"]
        lines += [f"| {name} | {row['images_per_s']} | {row['ratio']:.2f} |" for name, row in rows.items()]
    lines += ["", "## Decoding, one thread", "", "| decoder | ms a picture |", "|---|---|"]
    lines += [f"| {name} | {milliseconds:.3f} |" for name, milliseconds in results["decoding_ms"].items()]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["loader", "crops"], default="loader")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("TUTELAGE_DATA", "../shared/data")))
    parser.add_argument("--share", type=float, default=0.9, help="share of the 2,312 training pictures to load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="one process, seconds of CPU: for a busy machine")
    parser.add_argument("--machine", default=f"{os.cpu_count()}-core {platform.machine()}, no GPU")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = arguments.data_root / "coco_mini"
    source = Coco(root=root, val_fraction=1 - arguments.share)
    crops = arguments.part == "crops"
    results: dict[str, Any] = {
        "machine": arguments.machine,
        "load": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "measured": "one process, seconds of CPU" if arguments.cpu_time else "2 workers, seconds of wall clock",
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": Image.__version__},
        "images": len(source.split("train").ids),
    }
    rounds, cpu_time = arguments.rounds, arguments.cpu_time
    if crops:
        results["recipes"] = {
            recipe: measure_crops(recipe, source, rounds, cpu_time=cpu_time) for recipe in CROP_RECIPES
        }
    else:
        results["recipes"] = {
            recipe: measure_recipe(recipe, source, root, rounds, cpu_time=cpu_time) for recipe in RECIPES
        }
        results["decoding_ms"] = measure_decoding(root, rounds)
    name, text = ("loader_crops", report_crops(results)) if crops else ("loader", report(results))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

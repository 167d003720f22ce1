"""report.html and the closing table of a run."""

# N images, K labels, R resolution, H W map

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from tutelage.core import results
from tutelage.core.figures import draw_curves, svg
from tutelage.core.task import Metrics
from tutelage.core.templates import render_page
from tutelage.multilabel import metrics as scoring
from tutelage.multilabel.data.datamodule import MultilabelDataModule
from tutelage.multilabel.data.source import Source
from tutelage.multilabel.evaluation import Scored
from tutelage.multilabel.networks.ensemble import Ensemble
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.results import card
from tutelage.multilabel.results.comparison import PREDICTIONS, read_predictions

NUM_PICTURES = 8
NUM_EXAMPLES, NUM_VIEWS = 4, 5  # training pictures, and how often each is augmented
EXAMPLES = "examples.npz"  # training pictures with their augmentations, and the most wrong test pictures
HARDEST = 8  # labels
MOST_NAMES = 25  # in a scatter plot
MAPS = "maps.npz"  # what the picture grid is drawn from, so that a report can be written again without a network
CLASSES = "classes.csv"
SHOWN = ("CF1", "OF1", "CF1@3", "OF1@3", "pointing_game", "cam_mass")
CARD = (*(f"mAP_{part}" for part in (*card.FREQUENCIES, *card.SIZES)), "ECE", "fidelity_kl", "rank_agreement")


def keep_maps(folder: Path, *, networks: Mapping[str, Network | Ensemble], datamodule: MultilabelDataModule) -> None:
    """Keep pictures of the test split, evenly spaced, with each network's maps of the labels that are there."""
    split = datamodule.source.split(datamodule.test_split)
    chosen = np.unique(np.linspace(0, len(split.ids) - 1, NUM_PICTURES).astype(int))
    images_N3RR = datamodule.evaluation_images(datamodule.test_split, chosen.tolist())
    kept: dict[str, NDArray[Any]] = {
        "images": images_N3RR.cpu().numpy(),
        "targets": split.targets_NK[chosen],
        "ids": np.array([split.ids[index] for index in chosen]),
    }
    for role, network in networks.items():
        device = next(network.parameters()).device
        network.eval()
        with torch.no_grad():
            shown = network(images_N3RR.to(device), reads=frozenset({"cams_BKHW"}))
        assert shown.cams_BKHW is not None
        kept[f"cams_{role}"] = shown.cams_BKHW.float().cpu().numpy()
        kept[f"logits_{role}"] = shown.logits_BK.float().cpu().numpy()
    if list(networks) == ["student"] and (folder / MAPS).is_file():  # scored again without its teachers
        with np.load(folder / MAPS) as before:
            if np.array_equal(before["ids"], kept["ids"]):
                kept |= {name: before[name] for name in before.files if name not in kept}
    np.savez_compressed(folder / MAPS, **kept)  # type: ignore[arg-type]


def keep_examples(folder: Path, *, prediction: scoring.Prediction, datamodule: MultilabelDataModule) -> None:
    """Keep what shows the training: augmented pictures, and the test pictures on which the student is most wrong.

    How wrong it is on a picture is the binary cross-entropy of its logits, a mean over the labels that are known.
    """
    train, test = datamodule.source.split("train"), datamodule.source.split(datamodule.test_split)
    shown = np.unique(np.linspace(0, len(train.ids) - 1, NUM_EXAMPLES).astype(int))
    known_NK = prediction.targets_NK >= 0
    signed_NK = np.where(prediction.targets_NK == 1, -1, 1) * prediction.logits_NK
    wrong_N = np.sum(np.logaddexp(0, signed_NK) * known_NK, axis=1) / np.maximum(known_NK.sum(axis=1), 1)
    worst = np.argsort(-wrong_N, kind="stable")[:NUM_PICTURES]
    indices = prediction.index_N[worst]
    np.savez_compressed(
        folder / EXAMPLES,
        train=datamodule.training_images(shown.tolist(), views=NUM_VIEWS).numpy(),
        train_ids=np.array([train.ids[index] for index in shown]),
        wrong=datamodule.evaluation_images(datamodule.test_split, indices.tolist()).numpy(),
        wrong_ids=np.array([test.ids[index] for index in indices]),
        wrong_logits=prediction.logits_NK[worst],
        wrong_targets=prediction.targets_NK[worst],
    )


def keep_classes(folder: Path, *, label_names: Sequence[str], scored: Mapping[str, Scored]) -> None:
    """Write classes.csv: each label's positives and, for each network, its AP in percent."""
    by_role = {
        role: scoring.class_scores(s.prediction.logits_NK, s.prediction.targets_NK, label_names=label_names)
        for role, s in scored.items()
    }
    first = next(iter(by_role.values()))
    columns = {
        f"{role}_AP": [
            f"{100 * ap:.4f}" if count else "" for ap, count in zip(found.ap_K, found.positives_K, strict=True)
        ]
        for role, found in by_role.items()
    }
    if list(scored) == ["student"] and (folder / CLASSES).is_file():  # scored again without its teachers
        before = read_classes(folder)
        if [row["label"] for row in before] == list(label_names):
            columns |= {name: [row[name] for row in before] for name in _ap_columns(before) if name not in columns}
    rows = [
        [name, first.positives_K[k], *(column[k] for column in columns.values())] for k, name in enumerate(label_names)
    ]
    results.write_csv(folder / CLASSES, ["label", "positives", *columns], rows)


def summary(cfg: DictConfig, metrics: Metrics, *, shown: Sequence[str] = SHOWN) -> tuple[list[str], list[list[str]]]:
    """Return the closing table: a column a network, so that it fits a terminal with long names in it."""
    split = scored_split(cfg)
    networks = {**teachers(cfg), "student": ("", str(cfg.model.student.name))}
    networks = {role: found for role, found in networks.items() if f"{found[0]}{split}/mAP" in metrics}
    prefixes = [prefix for prefix, _ in networks.values()]
    parameters = [float(metrics[f"{prefix or 'student/'}parameters"]) for prefix in prefixes]
    lines = {
        "network": [name for _, name in networks.values()],
        "parameters": [f"{count / 1e6:.2f} M" for count in parameters],
        "mAP": [
            f"{metrics[f'{p}mAP']:.2f}  ({metrics[f'{p}mAP_low']:.1f}–{metrics[f'{p}mAP_high']:.1f})"
            for p in (f"{prefix}{split}/" for prefix in prefixes)
        ],
    }
    for name in shown:
        if f"{split}/{name}" in metrics:
            keys = [f"{prefix}{split}/{name}" for prefix in prefixes]  # a teacher is not compared with itself
            digits = 3 if name == "fidelity_kl" else 2
            lines[name] = [f"{metrics[key]:.{digits}f}" if key in metrics else "—" for key in keys]
    if "time/train_s" in metrics:
        seconds = [metrics.get(f"{prefix}time/train_s") for prefix in prefixes]
        lines["training time"] = ["—" if taken is None else f"{taken:.0f} s" for taken in seconds]
    if shown != SHOWN and "time/step_ms" in metrics:
        own = {"time a step": f"{metrics['time/step_ms']:.1f} ms", "memory": f"{metrics['memory/peak_mb']:.0f} MB"}
        lines |= {name: [value if role == "student" else "—" for role in networks] for name, value in own.items()}
    return ["", *networks], [[name, *cells] for name, cells in lines.items()]


def teachers(cfg: DictConfig) -> dict[str, tuple[str, str]]:
    """Return each teacher that is scored by itself: the prefix of its metrics, and its network or networks."""
    members = {} if cfg.teachers is None else OmegaConf.to_container(cfg.teachers.members)
    own = str(cfg.model.teacher.name)
    assert isinstance(members, dict)
    names = {str(key): str(((member or {}).get("network") or {}).get("name", own)) for key, member in members.items()}
    if not names:
        return {"teacher": ("teacher/", own)}
    if cfg.teachers.combine == "terms":
        return {key: (f"teacher/{key}/", name) for key, name in names.items()}
    combined = ", ".join(f"{key}: {name}" for key, name in names.items())
    return {f"teachers, {cfg.teachers.combine}": ("teacher/", combined)}


def print_closing_table(folder: Path, *, cfg: DictConfig, metrics: Metrics, source: Source) -> None:
    """Print what a person looks for first."""
    columns, rows = summary(cfg, metrics)
    warning = ""
    selection = source.notes.get("selection")
    if selection == "test":
        warning = "\nSelected on the test split, as much published work is: not comparable with held-out selection."
    results.print_table(
        f"{method_name(cfg)} on {data_name(cfg)}, {scored_split(cfg)} split, percent",
        columns,
        rows,
        caption=f"{folder}/report.html{warning}",
    )


def scored_split(cfg: DictConfig) -> str:
    return "test" if cfg.scoring is None else str(cfg.scoring.split)


def method_name(cfg: DictConfig) -> str:
    if "_target_" not in cfg.method:  # several, by name
        return "+".join(str(name) for name in cfg.method)
    return str(cfg.method._target_).rsplit(".", 2)[1]


def data_name(cfg: DictConfig) -> str:
    return str(cfg.data._target_).rsplit(".", 1)[1]


def write(folder: Path, *, cfg: DictConfig, metrics: Metrics, source: Source) -> None:
    """Write the self-contained report.html."""
    columns, rows = summary(cfg, metrics, shown=(*SHOWN, *CARD))
    classes = read_classes(folder)
    page = render_page(
        "tutelage.multilabel.results",
        "report.html.jinja",
        title=f"{method_name(cfg)} on {data_name(cfg)}",
        columns=columns,
        rows=rows,
        notes=dict(source.notes),
        protocols={**scoring.PROTOCOLS, **card.PROTOCOLS},
        card_figure=svg(_draw_card(folder, classes)),
        curves=svg(draw_curves(folder)),
        classes=classes,
        without_positives=[row["label"] for row in classes if row["positives"] == "0"],
        class_figure=svg(draw_classes(classes)),
        pictures=_pictures(folder, label_names=source.label_names),
        examples=_examples(folder, label_names=source.label_names),
        hardest=_hardest(classes),
        metrics=metrics,
        config=OmegaConf.to_yaml(cfg, resolve=True),
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def read_classes(folder: Path) -> list[dict[str, str]]:
    with (folder / CLASSES).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_classes(classes: Sequence[Mapping[str, str]]) -> Figure:
    scored = [row for row in classes if row["student_AP"]]
    figure = Figure(figsize=(9, max(1.5, 0.16 * len(scored) + 0.8)), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(scored, key=lambda row: float(row["student_AP"]))
    places = np.arange(len(ordered))
    for number, column in enumerate(name for name in _ap_columns(ordered) if name != "student_AP"):
        values, label = [float(row[column]) for row in ordered], column.removesuffix("_AP")
        axes.scatter(values, places, label=label, marker="|", s=60, color="black" if number == 0 else f"C{number}")
    axes.barh(places, [float(row["student_AP"]) for row in ordered], label="student", alpha=0.7)
    axes.set_yticks(places, [_cut(row["label"]) for row in ordered], fontsize=7)
    axes.set(xlabel="average precision, percent", xlim=(0, 100))
    axes.legend(fontsize=8)
    return figure


def _draw_card(folder: Path, classes: Sequence[Mapping[str, str]]) -> Figure:
    """Draw how far the student's probabilities can be trusted, and each label's AP beside the teacher's."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.set_aspect("equal")
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    left.set(title="reliability of the student", xlabel="probability", ylabel="share of labels that are there")
    if (folder / PREDICTIONS).is_file():
        predictions = read_predictions(folder)
        found = card.reliability(predictions.logits_NK, predictions.targets_NK)
        seen = found.count_B > 0
        left.plot(found.probability_B[seen], found.share_B[seen], "o-", markersize=4)
    right.plot([0, 100], [0, 100], color="grey", linewidth=0.8)
    right.set(title="AP of each label, percent", xlabel="teacher", ylabel="student", xlim=(0, 100), ylim=(0, 100))
    both = [row for row in classes if row["student_AP"] and row.get("teacher_AP")]
    points = [(float(row["teacher_AP"]), float(row["student_AP"])) for row in both]
    right.scatter([x for x, _ in points], [y for _, y in points], s=12, alpha=0.7)
    if len(both) <= MOST_NAMES:
        for row, point in zip(both, points, strict=True):
            right.annotate(_cut(row["label"], length=12), point, fontsize=6)
    if not both:
        right.text(50, 50, "no teacher was scored", ha="center", fontsize=8)
    return figure


def _ap_columns(classes: Sequence[Mapping[str, str]]) -> list[str]:
    return [name for row in classes[:1] for name in row if name.endswith("_AP")]


def _cut(label: str, *, length: int = 32) -> str:
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _hardest(classes: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The labels of the lowest AP; one or two positives say nothing about a label."""
    scored = [row for row in classes if row["student_AP"] and int(row["positives"]) >= 5]
    return sorted(scored, key=lambda row: float(row["student_AP"]))[:HARDEST]


def _examples(folder: Path, *, label_names: Sequence[str]) -> dict[str, Any] | None:
    """What was kept of training pictures and wrong ones; None for a run of before they were kept."""
    if not (folder / EXAMPLES).is_file():
        return None
    with np.load(folder / EXAMPLES) as kept:
        content = dict(kept)
    train = [
        {"id": str(name), "uris": [_png(view_3RR.transpose(1, 2, 0)) for view_3RR in views]}
        for name, views in zip(content["train_ids"], content["train"], strict=True)
    ]
    wrong = []
    for n, name in enumerate(content["wrong_ids"]):
        probability_K = 1 / (1 + np.exp(-content["wrong_logits"][n].astype(np.float64)))
        target_K = content["wrong_targets"][n]
        missed = _named((target_K == 1) & (probability_K < 0.5), probability_K, label_names)
        invented = _named((target_K == 0) & (probability_K > 0.5), probability_K, label_names)
        uri = _png(content["wrong"][n].transpose(1, 2, 0))
        wrong.append({"id": str(name), "uri": uri, "missed": missed, "invented": invented})
    return {"train": train, "wrong": wrong}


def _named(
    which_K: NDArray[np.bool_], probability_K: NDArray[np.float64], label_names: Sequence[str]
) -> list[tuple[str, float]]:
    return [(label_names[k], float(probability_K[k])) for k in np.flatnonzero(which_K).tolist()]


def _pictures(folder: Path, *, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the grid: a picture, and per label that is there each network's map over it."""
    with np.load(folder / MAPS) as kept:
        content = dict(kept)
    shown = [name.removeprefix("cams_") for name in content if name.startswith("cams_")]
    roles = [*(role for role in shown if role != "student"), "student"]  # teachers first
    rows = []
    for n, image_3RR in enumerate(content["images"]):
        present = np.flatnonzero(content["targets"][n] == 1)[:4]
        maps = [
            {
                "label": label_names[k],
                "shown": [
                    {
                        "role": role,
                        "uri": _png(overlay(image_3RR, content[f"cams_{role}"][n, k])),
                        "probability": 1 / (1 + np.exp(-float(content[f"logits_{role}"][n, k]))),
                    }
                    for role in roles
                ],
            }
            for k in present
        ]
        rows.append({"id": str(content["ids"][n]), "uri": _png(image_3RR.transpose(1, 2, 0)), "maps": maps})
    return rows


def overlay(image_3RR: NDArray[np.uint8], cam_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay the positive part of a map over its picture: uint8 [R, R, 3]."""
    cam_11HW = torch.from_numpy(cam_HW).clamp(min=0)[None, None]
    size = (image_3RR.shape[1], image_3RR.shape[2])
    heat_RR = torch.nn.functional.interpolate(cam_11HW, size, mode="bilinear", align_corners=False)[0, 0].numpy()
    heat_RR = heat_RR / max(float(heat_RR.max()), 1e-6)
    grey_RR1 = image_3RR.mean(0)[..., None] / 255
    colour_RR3 = matplotlib.colormaps["inferno"](heat_RR)[..., :3]
    mixed = (1 - 0.75 * heat_RR[..., None]) * grey_RR1 + 0.75 * heat_RR[..., None] * colour_RR3
    return np.asarray((mixed * 255).astype(np.uint8))


def _png(image_HW3: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

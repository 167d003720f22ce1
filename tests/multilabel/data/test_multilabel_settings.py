"""Each published setting of conf/experiment/ trains its teacher and its student, on a small tree of the true layout."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from trees import WHOLE, coco_file, write_coco, write_nus, write_voc

from tutelage.core.curves import read_curves
from tutelage.core.run import train

EXPERIMENTS = Path(__file__).resolve().parents[3] / "conf" / "experiment"


def write_small_coco(root: Path) -> None:
    train_split = coco_file([(i, f"{i}.jpg") for i in range(14)], [(i, (3, 18, 90)[i % 3], None) for i in range(14)])
    test = coco_file([(i, f"{i}.jpg") for i in (100, 101, 102)], [(100, 3, [0, 0, 40, 30]), (102, 18, [0, 0, 9, 9])])
    write_coco(root, train=train_split, test=test)


def write_small_voc(root: Path) -> None:
    trainval = {f"{i:06}": [(("cat", "dog")[i % 2], 0, WHOLE)] for i in range(14)}
    write_voc(root, 2007, {"trainval": trainval, "test": {"000100": [("cat", 0, WHOLE)], "000101": []}})


TREES: dict[str, Callable[[Path], None]] = {
    "coco_l2d": write_small_coco,
    "coco_448": write_small_coco,
    "voc2007_l2d": write_small_voc,
    "nuswide_l2d": write_nus,
}


def test_each_setting_on_pictures_is_tried() -> None:
    files = {path.stem for path in EXPERIMENTS.glob("*.yaml") if "text2sql" not in path.read_text()}
    assert files == set(TREES)


@pytest.mark.slow  # half a minute each: ResNets of full size
@pytest.mark.parametrize("name", TREES)
def test_three_steps(name: str, compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    """What the machine and the hour do not allow is set as a user would set it; the rest is the setting's own."""
    (tmp_path / "data").mkdir()
    TREES[name](tmp_path / "data")
    small = [
        f"data.root={tmp_path / 'data'}", "data.resolution=64", "data.batch_size=4", "teacher.batch_size=4",
        "data.workers=0", "model.teacher.weights=none", "model.student.weights=none", "trainer.precision=32-true",
        "trainer.accelerator=cpu", "trainer.max_steps=3", "trainer.progress_bar=false", "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    cfg = compose_config(f"experiment={name}", *small)
    metrics = train(cfg, folder=tmp_path / "run")
    assert {"test/mAP", "teacher/test/mAP"} <= metrics.keys()
    assert [step for step, _ in read_curves(tmp_path / "run")["train/loss"]] == [0, 1, 2]

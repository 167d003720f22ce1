"""What cannot be trained is refused before anything is: where it stands, what is wrong, and what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from tutelage.core import config
from tutelage.core.errors import ConfigError
from tutelage.core.results import write_json
from tutelage.core.run import open_task
from tutelage.multilabel.networks import heads

Compose = Callable[..., DictConfig]
SMALL = ["data.num_train=8", "data.num_val=4", "data.batch_size=4", "teacher.batch_size=4"]
TWO = ["+teachers.members.a=null", "+teachers.members.b.network.name=resnet14t"]
VIT = ["model.teacher.name=test_vit", "model.teacher.output_stride=null"]
CASES: dict[str, tuple[list[str], str, str, str]] = {  # overrides; where, what and hint of the error
    "stages that a network lacks": (
        ["method=at", "method.stages=9"], "method.stages", "9, but the student", "give at most",
    ),
    "a stage that only one has": (
        ["method=fitnet", "method.stage=9"], "method.stage", "9 is no stage that", "give 1 (the last) to",
    ),
    "batch norms that a teacher lacks": (
        ["method=ofd", *VIT], "model.teacher.name", "takes its margins from batch norms", "choose",
    ),
    "a teacher whose tokens follow the map": (
        ["method=simkd", *VIT], "model.teacher.name", "classifies with tokens beside it", "method=vkd",
    ),
    "the head of one of two teachers": (
        ["method=simkd", *TWO], "teachers.members", "the head of one teacher", "set model.teacher",
    ),
    "the head of each of two teachers": (
        ["method=simkd", "teachers.combine=terms", *TWO], "teachers.members", "the head of one teacher",
        "set model.teacher",
    ),
    "features that have no mean": (
        ["method=fitnet", *TWO], "teachers.combine", "FitNet reads stages", "teachers.combine=terms",
    ),
    "a combination that there is none of": (
        ["teachers.combine=best", *TWO], "teachers.combine", "'best' is no combination", "give average, by_ap, terms",
    ),
    "a key that no teacher has": (
        ["+teachers.members.a.netwrk.name=resnet18"], "teachers.members.a", "netwrk", "give keys of model.teacher",
    ),
    "a name that is taken": (
        ["+teachers.members.student=null"], "teachers.members.student", "cannot name a teacher", "give another word",
    ),
    "labels that share an embedding": (
        ["method=l2d", "head=ml_decoder", "head.groups=2"], "head.groups", "an embedding of each label",
        "head.groups=null",
    ),
    "a softmax over several labels": (
        ["method=kd"], "method", "takes a softmax over the labels", "choose method=mld",
    ),
    "logits of a tower": (
        ["method=mld", *VIT, "model.teacher.features_only=true"], "model.teacher.features_only", "Mld reads logits_BK",
        "choose a method that reads features",
    ),
    "two networks whose maps do not add up": (
        ["method=sdd", "head@teacher.head=gmp"], "method.grids", "the mean of the teacher's maps", "choose head=linear",
    ),
    "a second teacher whose maps do not add up": (
        ["method=sdd", "+teachers.members.a=null", f"+teachers.members.b.head._target_={heads.__name__}.Gmp"],
        "method.grids", "the mean of the teacher's maps", "choose head=linear",
    ),
    "a memory that never changes": (
        ["method=crd", "method.momentum=1.0"], "method.momentum", "1.0 is no share below 1", "give a number in [0, 1)",
    ),
}  # fmt: skip


def refused(cfg: DictConfig, folder: Path) -> ConfigError:
    """Do all that comes before training, and return the error."""
    with pytest.raises(ConfigError) as caught:
        task = open_task(cfg, folder=folder)
        task.prepare()
        task.module(task.datamodule())
    assert not (folder.parent / "store" / "teachers").exists() and not (folder / "checkpoints").exists()
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_before_training(name: str, compose_config: Compose, tmp_path: Path) -> None:
    overrides, where, what, hint = CASES[name]
    error = refused(compose_config(*SMALL, *overrides), tmp_path / "run")
    assert error.where == where and what in error.what and hint in error.hint


def test_a_head_without_maps_is_shown_the_way_to_grad_cam(
    compose_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads.Mlp, "has_maps", False)
    cfg = compose_config(*SMALL, "method=cam_kd", "head=mlp")
    error = refused(cfg, tmp_path / "run")
    assert error.where == "model.student.cams" and "the head Mlp makes none" in error.what
    assert error.hint == "set model.student.cams=gradient for Grad-CAM"


def test_a_teacher_of_other_labels_is_refused(compose_config: Compose, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    write_json(tmp_path / "other" / "manifest.json", {"labels": ["cat", "dog"]})
    checkpoint = tmp_path / "other" / "checkpoints" / "best.ckpt"
    error = refused(compose_config(f"model.teacher.checkpoint={checkpoint}"), tmp_path / "run")
    assert error.where == "model.teacher.checkpoint" and "was trained on 2 labels, the data has 10" in error.what
    assert error.hint == "give a teacher of this data, or none to train one"


def test_two_terms_with_one_name_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        config.register_combinations(["method=cam_kd+mld+cam_kd"])
    error = caught.value
    assert (error.where, error.hint) == ("method", "give each name once") and "two terms named cam_kd" in error.what

"""Teachers: a recipe of their own, several of them, and several methods that learn from them."""

# B batch, T networks, K labels, H W map

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import save_file

from tutelage.core import build, cli, config
from tutelage.core.errors import ConfigError
from tutelage.core.run import open_task, train
from tutelage.multilabel.networks.cam import area_pooled
from tutelage.multilabel.networks.ensemble import Ensemble
from tutelage.multilabel.networks.network import NetworkSpec, build_network
from tutelage.multilabel.results import report
from tutelage.multilabel.teacher import teacher_key, teacher_specs

Compose = Callable[..., DictConfig]
SMALL = [
    "data.num_train=24", "data.num_val=12", "data.num_test=12", "data.batch_size=8", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.log_every_n_steps=1", "trainer.threads=1",
    "teacher.trainer.max_epochs=1", "teacher.batch_size=8",
]  # fmt: skip


def key(cfg: DictConfig) -> dict[str, object]:
    (spec,) = teacher_specs(cfg)
    return teacher_key(spec, fingerprint="data")


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=1", "optim=sgd_cosine", "loss=asl", "augment=flip", "head=ml_decoder", "trainer.ema_decay=0.9",
        "trainer.max_epochs=99", "trainer.val_check_interval=0.5", "trainer.accumulate_grad_batches=2", "seed=7",
        "data.batch_size=4", "trainer.gradient_clip_val=1", "method=mld", "model.student.name=resnet18",
        "trainer.devices=2", "trainer.precision=bf16-mixed", "augment.seed=5", "model.teacher.cams=gradient",
    ],
)  # fmt: skip
def test_nothing_that_is_set_on_the_student_makes_another_teacher(compose_config: Compose, override: str) -> None:
    assert key(compose_config(override)) == key(compose_config())


@pytest.mark.parametrize(
    "override",
    [
        "teacher.optim.lr=1", "optim@teacher.optim=sgd_cosine", "loss@teacher.loss=asl", "head@teacher.head=gmp",
        "augment@teacher.augment=flip", "teacher.trainer.max_epochs=3", "teacher.trainer.ema_decay=0.9",
        "teacher.batch_size=4", "teacher.augment.seed=5", "model.teacher.name=resnet18", "data.resolution=40",
    ],
)  # fmt: skip
def test_what_makes_a_teacher_is_in_its_key(compose_config: Compose, override: str) -> None:
    assert key(compose_config(override)) != key(compose_config())


def test_a_teacher_sees_a_new_view_every_epoch(compose_config: Compose) -> None:
    (spec,) = teacher_specs(compose_config("data.views=2"))
    assert spec.config.data.views is None


def test_a_data_sets_recipe_is_the_teachers_too(compose_config: Compose) -> None:
    cfg = compose_config("data=coco", "data.root=x", "optim.lr=1", "loss=bce", "trainer.max_epochs=1")
    (spec,) = teacher_specs(cfg)
    own = spec.config
    assert (own.optim.lr, own.optim.schedule, own.loss.reduction) == (1e-4, "onecycle", "sum")
    assert (own.trainer.max_epochs, own.data.batch_size, own.model.student.name) == (80, 64, "resnet101")


def test_weights_are_known_by_their_content(compose_config: Compose, tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        save_file({"weight": torch.full((2,), value)}, tmp_path / f"{name}.safetensors")
    a, b, c = (key(compose_config(f"model.teacher.weights={tmp_path / name}.safetensors")) for name in "abc")
    assert a == b and a != c


def test_methods_are_composed_by_name(compose_config: Compose) -> None:
    config.register_combinations(["method=cam_kd+mld,mse"])
    cfg = compose_config("method=cam_kd+mld", "method.mld.weight.value=3", "method.cam_kd.weight.ramp_steps=2")
    assert set(cfg.method) == {"cam_kd", "mld"}
    assert (cfg.method.mld.weight.value, cfg.method.cam_kd.weight.ramp_steps) == (3, 2)
    build.check(cfg, shared=build.locate(cfg.task, where="task").shared)  # type: ignore[attr-defined]
    cfg = compose_config("method=cam_kd+mld", "+method.mld.wrong=3")
    with pytest.raises(ConfigError, match=r"method\.mld\.wrong"):
        build.check(cfg, shared=build.locate(cfg.task, where="task").shared)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="method: mld\\+mld has two terms named mld"):
        config.register_combinations(["method=mld+mld"])
    with pytest.raises(ConfigError, match="method: cam_kd is not for task=text2sql"):
        cli._check("config", ["task=text2sql", "method=cam_kd+mld"], sweep=False)


def test_all_methods_of_a_task_are_swept_by_a_pattern() -> None:
    expanded = cli._expand_glob("method=glob(*)", [])
    assert {"cam_kd", "supervised"} <= set(expanded.removeprefix("method=").split(","))
    assert not {"sft", "db_explore"} & set(expanded.removeprefix("method=").split(","))
    assert cli._expand_glob("method=cam_kd", []) == "method=cam_kd"


def test_an_ensemble_weighs_logits_and_maps_per_label() -> None:
    linear = {"_target_": "tutelage.multilabel.networks.heads.Linear"}
    networks = [
        build_network(
            NetworkSpec(name="test_resnet", weights="none", output_stride=stride), num_labels=3, head=linear,
            resolution=resolution, where="model.teacher",
        ).eval()
        for stride, resolution in ((None, 96), (8, 40))
    ]  # fmt: skip
    weights_TK = torch.tensor([[1.0, 3.0, 0.0], [1.0, 1.0, 2.0]])
    images_BCHW, reads = torch.rand(2, 3, 32, 32), frozenset({"cams_BKHW"})
    with torch.no_grad():
        first, second = (network(images_BCHW, reads=reads) for network in networks)
        found = Ensemble(networks, weights_TK)(images_BCHW, reads=reads)
        chosen = Ensemble(networks, weights_TK)(images_BCHW, reads=frozenset({"label_cams"}))
    for label, share in enumerate((0.5, 0.75, 0.0)):
        expected_B = share * first.logits_BK[:, label] + (1 - share) * second.logits_BK[:, label]
        torch.testing.assert_close(found.logits_BK[:, label], expected_B)
        pooled = area_pooled(second.cams_BKHW, size=first.cams_BKHW.shape[2:])
        expected_BHW = share * first.cams_BKHW[:, label] + (1 - share) * pooled[:, label]
        torch.testing.assert_close(found.cams_BKHW[:, label], expected_BHW)
    # What is true of each network's maps is true of theirs: grids of 3 and 5 places have no common divisor.
    assert first.cams_BKHW.shape[2:] == (3, 3) and second.cams_BKHW.shape[2:] == (5, 5)
    bias_TK = torch.stack([network.head.classifier.bias for network in networks]).detach()
    bias_K = (weights_TK / weights_TK.sum(0) * bias_TK).sum(0)
    torch.testing.assert_close(found.cams_BKHW.mean((2, 3)) + bias_K, found.logits_BK)
    labels_BL = torch.tensor([[1], [2]])
    torch.testing.assert_close(chosen.chosen_cams(labels_BL), found.chosen_cams(labels_BL))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all combinations: they have the same teachers."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("combine", ["average", "by_ap", "terms"])
def test_two_teachers_and_two_methods_in_one_run(
    compose_config: Compose, tmp_path: Path, store: Path, combine: str
) -> None:
    config.register_combinations(["method=cam_kd+mld"])
    members = [
        "+teachers.members.plain=null",
        "+teachers.members.gmp.head._target_=tutelage.multilabel.networks.heads.Gmp",
        "+teachers.members.gmp.network={name: test_convnext, resolution: 96, output_stride: null}",
    ]
    cfg = compose_config(*SMALL, "method=cam_kd+mld", f"teachers.combine={combine}", *members, f"store={store}")
    metrics = train(cfg, folder=tmp_path / "run")
    terms = {"cam_kd@plain", "cam_kd@gmp", "mld@plain", "mld@gmp"} if combine == "terms" else {"cam_kd", "mld"}
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[1] for name in kept if name.startswith("terms.")} == terms
    # Each λ is the ratio to the task loss alone, which all terms share.
    sums = {kept[f"terms.{name}.weight.task_sum"].item() for name in terms}
    assert len(sums) == 1 and {kept[f"terms.{name}.weight.steps"].item() for name in terms} == {3}
    assert not any("teacher" in name or "networks" in name for name in kept)
    prefix = "teacher/plain/test" if combine == "terms" else "teacher/test"
    assert f"{prefix}/mAP" in metrics and len(list((store / "teachers").glob("*/metrics.json"))) == 2
    first = str(cfg.model.teacher.name)
    columns, rows = report.summary(cfg, metrics)
    if combine == "terms":
        assert columns == ["", "plain", "gmp", "student"] and rows[0][1:3] == [first, "test_convnext"]
        assert "plain_AP" in (tmp_path / "run" / "classes.csv").read_text()
    else:
        assert columns == ["", f"teachers, {combine}", "student"]
        assert rows[0][1] == f"plain: {first}, gmp: test_convnext"
    assert next(cells for name, *cells in rows if name == "training time").count("—") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(cell in page for cell in (*columns, *rows[0]))


def test_a_tower_without_classifier_teaches_features_alone(compose_config: Compose, tmp_path: Path) -> None:
    tower = [
        *SMALL,
        "model.teacher.name=test_vit",
        "model.teacher.output_stride=null",
        "model.teacher.features_only=true",
    ]
    metrics = train(compose_config(*tower, "method=fitnet"), folder=tmp_path / "run")
    assert (
        "test/mAP" in metrics and "teacher/test/mAP" not in metrics and not (tmp_path / "store" / "teachers").exists()
    )
    task = open_task(compose_config(*tower, "method=mld"), folder=tmp_path / "other")
    task.prepare()
    with pytest.raises(ConfigError, match=r"features_only: Mld reads logits_BK"):
        task.module(task.datamodule())


def test_what_a_network_lacks_is_refused_before_a_teacher_trains(compose_config: Compose, tmp_path: Path) -> None:
    token = ["model.student.name=test_vit", "model.student.output_stride=null"]
    task = open_task(compose_config(*SMALL, *token, "method=grad_cam"), folder=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"classifies by a token of its own"):
        task.prepare()
    assert not (tmp_path / "store" / "teachers").exists()

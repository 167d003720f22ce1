"""What cannot work is refused before a teacher is trained for it, and errors of a teacher name its own keys."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from tutelage.core.callbacks import LastCheckpoint
from tutelage.core.errors import ConfigError, DataError, RunError, UserError
from tutelage.core.evaluate import fit_to_machine
from tutelage.core.run import train
from tutelage.multilabel import teacher

Compose = Callable[..., DictConfig]
TEXT2SQL = "tutelage.text2sql.task.Text2SqlTask"
SMALL = [
    "data.num_train=40", "data.num_val=12", "data.num_test=12", "data.batch_size=8", "teacher.batch_size=8",
    "trainer=cpu", "trainer.progress_bar=false", "trainer.threads=1", "trainer.max_epochs=1",
    "teacher.trainer.max_epochs=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """No teacher is trained in this file."""

    def fail(cfg: DictConfig, *, folder: Path) -> None:
        raise AssertionError("a teacher is trained")

    monkeypatch.setattr(teacher, "train", fail)


def test_without_a_fault_a_teacher_would_be_trained(compose_config: Compose, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a teacher is trained"):
        train(compose_config(*SMALL), folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["trainer.precision=16-mixed"], r"trainer.precision: 16-mixed needs a GPU. Set trainer.precision=bf16-mixed"),
        (["trainer.precision=half"], r"trainer: Precision 'half' is invalid"),
        (["trainer.strategy=dpp"], r"trainer: .*strategy='dpp'"),
        (["trainer.val_check_interval=1.5"], r"trainer: .*1.5"),
        (["trainer=cpus", "trainer.sync_batchnorm=true"], r"trainer.sync_batchnorm: .*on GPUs only"),
        (["trainer.accelerator=gpu"], r"trainer.devices: 1 asked for, 0 GPUs found"),
        (["data.batch_size=41"], r"data.batch_size: 41 is larger than the training data \(40 samples\)"),
        (["teacher.batch_size=41"], r"^teacher.batch_size: 41 is larger than the training data \(40 samples\)"),
        (["trainer=cpus", "teacher.batch_size=9"], r"^teacher.batch_size: 9 does not divide by 2 processes"),
        (["store={tmp}/file"], r"store: cannot write into .*file/teachers .*Give another: store="),
        (["store={tmp}/file", "teachers.combine=by_ap"], r"store: cannot write into"),
        (["model.student.checkpoint={tmp}/sql/checkpoints/best.ckpt"],
         rf"model.student.checkpoint: .*best.ckpt is a checkpoint of {TEXT2SQL}, which trains no image class"),
        (["model.student.checkpoint={tmp}/unfit.pth"], r"model.student.checkpoint: .*unfit.pth does not fit: "),
        (["model.student.checkpoint={tmp}/none.pth"], r"model.student.checkpoint: there is no file"),
        (["model.student.weights={tmp}/unfit.pth"], r"model.student.weights: .*unfit.pth does not fit: "),
        (["model.teacher.checkpoint={tmp}/sql/checkpoints/best.ckpt"], rf"model.teacher.checkpoint: .*of {TEXT2SQL}"),
    ],
)  # fmt: skip
def test_it_is_refused_first(overrides: list[str], says: str, compose_config: Compose, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = tmp_path / "sql"
    for folder in (".hydra", "checkpoints"):
        (run / folder).mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text(f"task: {{_target_: {TEXT2SQL}}}\n")
    for path in (run / "checkpoints" / "best.ckpt", tmp_path / "unfit.pth"):
        torch.save({"state_dict": {"model.causal.lm_head.weight": torch.zeros(2, 2)}}, path)
    given = [override.format(tmp=tmp_path) for override in overrides]
    with pytest.raises(ConfigError, match=says):
        train(compose_config(*SMALL, *given), folder=tmp_path / "run")
    assert not (tmp_path / "store" / "teachers").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"callbacks": {"LastCheckpoint": {"place": None, "task": TEXT2SQL}}},
         rf"last.ckpt: a checkpoint of {TEXT2SQL}, and this is a run of tutelage.multilabel.*Delete .*to start over"),
        (None, r"last.ckpt: not a whole checkpoint"),
    ],
    ids=["of another task", "cut off"],
)  # fmt: skip
def test_a_checkpoint_that_cannot_be_gone_on_from_is_refused_first(
    content: dict[str, object] | None, says: str, compose_config: Compose, tmp_path: Path
) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    if content is None:
        last.write_bytes(b"PK")
    else:
        torch.save({"state_dict": {}, "loops": {}, "optimizer_states": [], **content}, last)
    with pytest.raises(RunError, match=says):
        train(compose_config(*SMALL), folder=tmp_path / "run")


def test_a_checkpoint_names_its_task(tmp_path: Path) -> None:
    kept = LastCheckpoint(tmp_path, every_n_steps=1, task=TEXT2SQL)
    assert kept.state_dict() == {"place": None, "task": TEXT2SQL} and kept.state_key == "LastCheckpoint"


@pytest.mark.parametrize(
    ("where", "error", "expected"),
    [
        ("model.teacher", ConfigError("data.batch_size", "41 is too large", "give less"),
         "teacher.batch_size: 41 is too large. Give less."),
        ("model.teacher", RunError("train/loss", "not finite at step 1",
                                   "lower optim.lr, set trainer.gradient_clip_val, or use trainer.precision=32-true"),
         "train/loss: not finite at step 1. Lower teacher.optim.lr, set teacher.trainer.gradient_clip_val, or use "
         "trainer.precision=32-true."),
        ("model.teacher", ConfigError("optim.lr", "-1 is negative", "give more"),
         "teacher.optim.lr: -1 is negative. Give more."),
        ("model.teacher", ConfigError("head", "does not fit", "see loss.reduction"),
         "teacher.head: does not fit. See teacher.loss.reduction."),
        ("model.teacher", ConfigError("model.student.weights", "no such file", "give model.student.weights=none"),
         "model.teacher.weights: no such file. Give model.teacher.weights=none."),
        ("teachers.members.big.network", ConfigError("augment.crop", "0 is too small", "give trainer.max_epochs=3"),
         "teachers.members.big.augment.crop: 0 is too small. Give teachers.members.big.trainer.max_epochs=3."),
        ("model.teacher", RunError("train", "interrupted", "continue with: python train.py run=/store/x.partial"),
         "train: interrupted. Continue with: the command that you gave."),
        ("model.teacher", DataError("data.root", "is gone", "give data.root=/there/optim.txt"),
         "data.root: is gone. Give data.root=/there/optim.txt."),
    ],
)  # fmt: skip
def test_errors_of_a_teacher_name_its_keys(
    where: str, error: UserError, expected: str, compose_config: Compose
) -> None:
    (spec,) = teacher.teacher_specs(compose_config())
    spec = teacher.TeacherSpec(name="teacher", where=where, network=spec.network, config=spec.config)
    with pytest.raises(type(error)) as caught, teacher.own_settings(spec):
        raise error
    assert str(caught.value) == expected


@pytest.mark.parametrize(("precision", "has_bf16", "scored"), [
    ("16-mixed", True, "16-mixed"), ("bf16-mixed", False, "32-true"), ("bf16-mixed", True, "bf16-mixed"),
    ("32-true", False, "32-true"),
])  # fmt: skip
def test_a_run_is_scored_in_what_the_machine_has(
    precision: str, has_bf16: bool, scored: str, compose_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
    cfg = compose_config("trainer=gpus", f"trainer.precision={precision}")
    resets = fit_to_machine(cfg)
    assert cfg.trainer.precision == scored and bool(resets) == (precision != scored)

"""Runs whose teacher is recorded and replayed: the same student, whatever happens to the record in between."""

import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from few_scenes import SMALL
from omegaconf import DictConfig

from tutelage.core import config
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.results import write_json
from tutelage.core.run import train
from tutelage.core.sweep import totals
from tutelage.multilabel.replay import callback, shards

pytestmark = pytest.mark.filterwarnings("ignore:.*lies in no run folder")
Fit = Callable[..., dict[str, torch.Tensor]]
State = dict[str, torch.Tensor]


def same(expected: State, found: State) -> bool:
    assert expected.keys() == found.keys()
    return all(torch.equal(expected[name], found[name]) for name in expected)


def weights(folder: Path) -> State:
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert isinstance(content, dict)
    return content


def records(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "store" / "replays").glob("*") if path.is_dir())


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        (["method=cam_kd"], {"logits_BK", "cams_BKHW"}),
        (["method=cam_kd", "method.support=positives"], {"logits_BK", "positive_cams"}),
        (["method=grad_cam"], {"logits_BK", "positive_cams"}),
        (["method=cam_kd+fitnet"], {"logits_BK", "cams_BKHW", "stages.0"}),
    ],
)
def test_a_student_of_a_replayed_teacher_equals_one_of_a_live_teacher(
    fit: Fit, tmp_path: Path, asked: list[int], method: list[str], fields: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config.register_combinations(method)
    exact = [*method, "teacher.replay_dtype=float32"]
    live = fit(*exact, "teacher.replay=off")
    assert asked == [8] * 6 and not records(tmp_path)
    asked.clear()
    first = fit(*exact)
    assert asked == [8] * 6
    asked.clear()
    later = fit(*exact)
    # A batch of each epoch is compared, and the very first one is shown once more to choose kernels.
    assert asked == [8] * 3
    assert same(first, later)
    if "method=grad_cam" in method:
        # Maps on demand, of as many labels as are asked for: sums go in another order, and Adam makes whole steps of it
        # where a gradient is nothing but rounding.
        assert all(torch.allclose(live[name], first[name], rtol=2e-2, atol=3e-2) for name in live)
    else:
        assert same(live, first)
    assert "86% of which is recorded: 2 view(s) of 28 pictures" in capsys.readouterr().out  # 24 of 28, in 3 batches
    (record,) = records(tmp_path)
    assert fields <= {path.name for path in record.iterdir()}
    assert ("cams_BKHW" in fields) == (record / "cams_BKHW").exists()


def test_who_records_sees_what_others_replay(fit: Fit, tmp_path: Path, asked: list[int]) -> None:
    """In half precision too; and a second method's fields come beside the first's."""
    assert same(fit(), fit())
    asked.clear()
    fit("method=fitnet")
    assert asked == [8] * 6 and len(records(tmp_path)) == 1
    # Another seed has another order, and samples that filled no batch before.
    found, live = fit("seed=2"), fit("seed=2", "teacher.replay=off")
    for name in live:
        torch.testing.assert_close(found[name], live[name], rtol=2e-2, atol=3e-2)
    asked.clear()
    fit("seed=2")
    assert asked == [8] * 3


def test_without_augmentation_there_is_one_view(fit: Fit, tmp_path: Path, asked: list[int]) -> None:
    """So the first student's second epoch replays its first."""
    fit("augment=none", "data.num_train=24")
    assert asked == [8] * 5  # an epoch of three; a batch twice, to choose kernels and to compare
    assert [path.name for path in (records(tmp_path)[0] / "cams_BKHW").iterdir()] == ["view-00000.bin"]


def test_what_answers_depend_on_names_the_record(
    fit: Fit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, teacher_weights: Path
) -> None:
    keys: list[Any] = []

    class Stop(Exception):
        pass

    def stop(root: Path, key: Any, **room: int) -> None:
        keys.append(key)
        raise Stop

    monkeypatch.setattr(callback, "make_room", stop)
    state = torch.load(teacher_weights, weights_only=True)
    torch.save({**state, "head.classifier.bias": state["head.classifier.bias"] + 1}, tmp_path / "other.pth")

    def key(*overrides: str) -> Any:
        with pytest.raises(Stop):
            fit(*overrides)
        return keys[-1]

    base = key()
    for change in (
        "augment.seed=5", "augment=crop_flip", "data.resolution=64", "teacher.replay_dtype=uint8", "data.scene_seed=1",
        "model.teacher.cams=gradient", f"model.teacher.checkpoint={tmp_path / 'other.pth'}",
    ):  # fmt: skip
        assert key(change) != base, change
    assert key("seed=2", "data.views=7", "optim.lr=1e-4", "method=mld", "data.batch_size=4") == base
    assert key("augment=none") == key("augment=none", "augment.seed=5")


def test_a_record_of_something_else_stops_the_run(fit: Fit, tmp_path: Path) -> None:
    fit()
    (record,) = records(tmp_path)
    # Whole, and of other pictures: the second view in the first one's place.
    shutil.copy(record / "cams_BKHW" / "view-00001.bin", record / "cams_BKHW" / "view-00000.bin")
    says = rf"teacher.replay: cams_BKHW of view 0 in {record} is not what the teacher shows: .* Delete {record} to"
    with pytest.raises(DataError, match=says):
        fit()


def test_a_damaged_record_is_made_whole(
    fit: Fit, tmp_path: Path, asked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    first = fit()
    path = records(tmp_path)[0] / "logits_BK" / "view-00000.bin"
    before = path.read_bytes()
    path.write_bytes(before[:-200])
    asked.clear()
    assert same(first, fit()) and len(asked) > 3 and path.read_bytes() == before
    assert "logits_BK/view-00000.bin was cut off" in capsys.readouterr().out


def test_a_full_disk_ends_the_recording_and_changes_nothing_else(
    fit: Fit, tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit()
    shutil.rmtree(tmp_path / "store" / "replays")
    written, pwrite = [0], shards.os.pwrite

    def full(file: int, content: bytes, offset: int) -> int:
        written[0] += len(content)
        if written[0] > 9000:
            raise OSError(28, "No space left on device")
        return int(pwrite(file, content, offset))

    monkeypatch.setattr(shards.os, "pwrite", full)
    asked.clear()
    assert same(whole, fit()) and asked == [8] * 6
    assert capsys.readouterr().out.count("recording ends here (No space left on device)") == 1
    monkeypatch.undo()
    assert same(whole, fit())


def test_what_cannot_be_recorded_is_answered_live_and_said(
    fit: Fit, tmp_path: Path, asked: list[int], teacher_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit("teacher.replay=auto", "teacher.replay_max_gb=1e-6")
    said = capsys.readouterr().out
    assert "replay: teacher answers live: recording 2 view(s) of logits_BK, cams_BKHW takes 42 kB" in said
    assert "more than teacher.replay_max_gb=1e-06" in said and not records(tmp_path) and asked == [8] * 6
    with pytest.raises(ConfigError, match=r"teacher.replay: teacher cannot be .* Raise teacher.replay_max_gb"):
        fit("teacher.replay_max_gb=1e-6")
    state = torch.load(teacher_weights, weights_only=True)
    torch.save({**state, "head.classifier.bias": torch.full((10,), 1e5)}, tmp_path / "huge.pth")
    with pytest.raises(ConfigError, match=r"replay_dtype: logits_BK holds numbers that are not finite in float16"):
        fit(f"model.teacher.checkpoint={tmp_path / 'huge.pth'}")


@pytest.mark.slow  # trains two teachers for each of six students: 13 s
def test_teachers_have_a_record_each(fit: Fit, tmp_path: Path, asked: list[int]) -> None:
    gmp = "+teachers.members.gmp.head._target_=tutelage.multilabel.networks.heads.Gmp"
    members = ["+teachers.members.plain=null", gmp]
    for combine, num_teachers, num_records in (("terms", 2, 2), ("average", 1, 3)):
        both = [*members, f"teachers.combine={combine}"]
        first = fit(*both, trains_teacher=True)
        asked.clear()
        assert same(first, fit(*both, trains_teacher=True))
        assert len(asked) == 3 * num_teachers and len(records(tmp_path)) == num_records
    asked.clear()
    fit(members[0], trains_teacher=True)  # alone, it finds the record that it made beside another
    assert len(asked) == 3
    with pytest.raises(ConfigError, match=r"teachers.members.gmp.replay: is of all teachers. Set teacher.replay"):
        fit(*members, "+teachers.members.gmp.replay=off")


def test_a_sweep_adds_up_what_replay_saved(
    fit: Fit, compose_config: Callable[..., DictConfig], tmp_path: Path, teacher_weights: Path
) -> None:
    fit()
    jobs = [tmp_path / name for name in ("replays", "records", "unfinished")]
    train(compose_config(*SMALL, f"model.teacher.checkpoint={teacher_weights}"), folder=jobs[0])
    jobs[1].mkdir()
    write_json(jobs[1] / "metrics.json", {"time/teacher_saved_s": 0.0})
    text = {"time/teacher_saved_s": "saved {total:.6f} s", "time/none": "{total}"}
    (line,) = totals(jobs, text)
    assert float(line.split()[1]) > 0 and totals(jobs[1:], text) == []


@pytest.mark.slow  # seven processes that import torch: 40 s
def test_a_run_killed_while_recording_or_replaying_resumes_to_the_same_bits(
    train_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, teacher_weights: Path
) -> None:
    common = [*SMALL, "trainer.checkpoint_every_n_steps=2", f"model.teacher.checkpoint={teacher_weights}"]
    runs: list[tuple[str, tuple[int, ...]]] = [("whole", ()), ("killed", (2, 2)), ("killed", (3,))]
    for number, (store, kills) in enumerate(runs):
        folder = tmp_path / str(number)
        options = [*common, f"store={tmp_path / store}"]
        for after in kills:
            stopped = train_script(*options, f"run={folder}", kill_after=after)
            assert stopped.returncode == -signal.SIGKILL, stopped.stderr
            options = []
        done = train_script(*options, f"run={folder}")
        assert done.returncode == 0, done.stderr
        assert same(weights(tmp_path / "0"), weights(folder))


@pytest.mark.slow  # two jobs of two processes: 40 s
def test_two_processes_record_and_one_replays(
    compose_config: Callable[..., DictConfig], tmp_path: Path, asked: list[int]
) -> None:
    plain = [
        *SMALL, "model.teacher.name=test_convnext", "model.student.name=test_convnext",
        "model.student.output_stride=null", "model.teacher.output_stride=null",
    ]  # fmt: skip
    train(compose_config(*plain, "trainer=cpus"), folder=tmp_path / "two")
    asked.clear()
    train(compose_config(*plain), folder=tmp_path / "one")
    assert len(asked) == 3
    train(compose_config(*plain, "trainer=cpus"), folder=tmp_path / "again")
    assert same(weights(tmp_path / "two"), weights(tmp_path / "again"))
    expected, found = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)

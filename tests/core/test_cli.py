"""The command line as a person meets it: one line for a slip, no traceback, and nothing made."""

import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.core import cli, config
from tutelage.core.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(ROOT / "train.py")]
    return subprocess.run([*program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


SLIPS = [
    ("trainer.max_epoch=3", "trainer.max_epoch: no such key. Did you mean trainer.max_epochs?"),
    ("epochs=3", "epochs: no such key. Did you mean trainer.max_epochs?"),
    ("zzzz=3", "zzzz: no such key. Keys there: task, data, model, method, optim, trainer"),
    ("trainer.max_epochs=many", "trainer.max_epochs: 'many' does not fit (Value 'many' of type 'str' could not"),
    ("method=cam_k", "method: no choice 'cam_k'. Did you mean cam_kd? choose from: at, cam_kd, "),
    ("task=text2sql method=cam_kd", "method: cam_kd is not for task=text2sql. Choose from: "),
    ("data=spider", "data: spider is not for task=multilabel. Choose from: coco, digits, "),
    ("seed=1,2", "seed: several values for one run. Add -m for a sweep"),
    ("nonsense", "Write key=value; quote values with commas or spaces."),
    ("run=/proc/no/such", "run: cannot make the folder /proc/no/such"),
]


@pytest.mark.parametrize(("overrides", "says"), SLIPS)
def test_a_slip_is_explained(overrides: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config.register()
    with pytest.raises(ConfigError) as caught:
        cli._check("config", overrides.split(), sweep=False)
    assert says in str(caught.value)
    assert not list(tmp_path.iterdir())  # refused before anything was made


@pytest.mark.parametrize("value", ["seed=1,x", "method=cam_kd,camkd", "method=cam_kd,sft"])
def test_every_value_of_a_sweep_is_looked_at(value: str) -> None:
    config.register()
    with pytest.raises(ConfigError):
        cli._check("config", [value, "trainer.max_epochs=1,2"], sweep=True)


def test_a_sweep_of_good_values_passes() -> None:
    config.register()
    cli._check("config", ["seed=1,2", "method=cam_kd,supervised"], sweep=True)


def test_no_traceback_and_exit_status_2(tmp_path: Path) -> None:
    done = run("method=cam_kd", "data=coco", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: data.root: no value given. Give it on the command line: data.root=…"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            ["against={a}"],
            "against: two finished runs are compared as they are. Give run=… and against=…, and nothing else.",
        ),
        (["run={a}", "against={a}", "seed=2"], "against: two finished runs are compared as they are."),
        (["run={a}", "against={a}/no"], "/a/no is not a run folder. Give the folder of a run."),
    ],
)
def test_two_runs_to_compare_are_given_whole(given: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "a" / ".hydra").mkdir(parents=True)
    (tmp_path / "a" / ".hydra" / "config.yaml").write_text("{}")
    given = [text.format(a=tmp_path / "a") for text in given]
    with pytest.raises(ConfigError) as caught:
        cli._two_runs(given)
    assert says in str(caught.value)
    run, other = cli._two_runs([f"run={tmp_path / 'a'}", "trust=mine,yours", f"against={tmp_path / 'a'}"])
    assert (run.folder, run.trusted, run.overrides) == (tmp_path / "a", ("mine", "yours"), ())
    assert other == tmp_path / "a"


def test_help_lists_every_choice_and_when_to_take_it(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0 and not list(tmp_path.iterdir())
    for folder in (path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        for choice in folder.glob("*.yaml"):
            lines = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == [choice.stem]]
            if choice.stem == "model":  # also the heading of a group
                lines.remove(["model"])
            assert lines and all(len(words) > 3 for words in lines), (
                f"{choice}: let its first line say when to choose it"
            )


@pytest.mark.parametrize(
    ("program", "groups"),
    [
        ("explore.py", {"sampler", "synthesizer"}),
        ("evaluate.py", {"task", "data", "model", "prompt", "inference"}),
        ("ask.py", set()),
        ("export.py", set()),
        ("predict.py", set()),
    ],
)
def test_help_lists_only_what_the_program_uses(program: str, groups: set[str]) -> None:
    done = subprocess.run([sys.executable, program, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and program in done.stdout
    every = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert {line for line in done.stdout.splitlines() if line in every} == groups
    shown = {path.stem for group in groups for path in (ROOT / "conf" / group).glob("*.yaml")}  # api is in two groups
    for group in every - groups - {"data", "logger"}:
        for choice in (path for path in (ROOT / "conf" / group).glob("*.yaml") if path.stem not in shown):
            assert not any(line.startswith(f"  {choice.stem} ") for line in done.stdout.splitlines()), choice
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.split()}
    if program == "evaluate.py":  # a run's network stays its own; without a run, language models alone are scored
        assert {"text2sql", "qwen2_5_coder_7b", "voc2007", "spider"} <= listed
        assert not {"multilabel", "resnet101_to_resnet34"} & listed
    assert ("-m key=1,2,3" in done.stdout) == (program == "train.py")


def test_help_and_cfg_import_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['train.py', {!r}, *{!r}]; exec(open('train.py').read()); print('torch' in sys.modules)"
    )
    for question, rest in (("--help", []), ("--cfg", ["job"])):
        done = subprocess.run(
            [sys.executable, "-c", code.format(question, rest)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_an_error_says_where_what_and_a_hint() -> None:
    assert (
        str(ConfigError("data.root", "no such folder.", "give another")) == "data.root: no such folder. Give another."
    )
    assert str(DataError("a.jpg", "cut off", "did it arrive whole?")) == "a.jpg: cut off. Did it arrive whole?"

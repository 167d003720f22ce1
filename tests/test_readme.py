"""Every command that README and docs show is one that works, and every page they link to is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.core import cli, config
from tutelage.core.arguments import parse_arguments
from tutelage.core.errors import ConfigError
from tutelage.multilabel.predict.command import PredictSettings
from tutelage.multilabel.results.exporting import ExportSettings
from tutelage.text2sql.explore import config as explore_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("experiments/*/README.md"))]
PRIMARY = {"train.py": "config", "evaluate.py": "evaluate", "explore.py": "explore"}
SMALL = {"export.py": ExportSettings, "predict.py": PredictSettings}


def commands() -> list[tuple[Path, str, list[str]]]:
    """Each (page, script, arguments) of a line or a code span that calls one of the scripts."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for script, rest in re.findall(r"python (\w+\.py)([^\n`|]*)", text):
            if script in PRIMARY or script in SMALL:
                found.append((page, script, shlex.split(rest.split(" #")[0].split(" > ")[0], comments=True)))
    return found


COMMANDS = commands()


def test_commands_are_found() -> None:
    assert {script for _, script, _ in COMMANDS} == {*PRIMARY, *SMALL} and len(COMMANDS) > 20


@pytest.mark.parametrize(
    ("page", "script", "arguments"),
    COMMANDS,
    ids=[f"{page.stem}-{script}-{i}" for i, (page, script, _) in enumerate(COMMANDS)],
)
def test_a_command_composes(
    page: Path, script: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (ROOT / script).exists()
    if set(arguments) & {"--help", "--cfg", "…"}:
        return
    if script in SMALL:
        parse_arguments(arguments, SMALL[script], usage="")
        return
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    if script == "evaluate.py" and any(o.startswith(("scoring.", "data.root=")) for o in overrides):
        return  # keys of a finished run's own config, which is not here
    if any(argument.startswith("run=") for argument in arguments):  # the run's own task: that of what is chosen
        chosen = [config.CONF / f"{key}/{value}.yaml" for key, _, value in (o.partition("=") for o in overrides)]
        overrides += sorted({f"task={task}" for path in chosen if path.is_file() for task in cli.tasks_of(path)})
    # These name what a run made.
    overrides = [o for o in overrides if not o.startswith(("run=", "against=", "predictions="))]
    monkeypatch.chdir(tmp_path)
    config.register()
    explore_config.register()
    try:
        cli._check(PRIMARY[script], [*overrides, "run=here"], sweep="-m" in arguments)
    except ConfigError as error:
        pytest.fail(f"{page.name}: python {script} {' '.join(arguments)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_first_lines_are_the_two_commands() -> None:
    lines = [
        line for line in (ROOT / "README.md").read_text().splitlines() if line and not line.startswith(("#", "```"))
    ]
    assert lines[:2] == ["make train", "make test"]


@pytest.mark.slow  # minutes: the defaults as a stranger types them
@pytest.mark.parametrize("arguments", [["train.py"], ["train.py", "task=text2sql"], ["explore.py"]], ids=" ".join)
def test_the_defaults_run(arguments: list[str], tmp_path: Path) -> None:
    program = [sys.executable, *arguments, f"run={tmp_path / 'run'}", f"store={tmp_path / 'store'}"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [page] = [Path(line) for line in done.stdout.split() if line.endswith("report.html")][-1:]
    assert page.is_relative_to(tmp_path) and page.exists()

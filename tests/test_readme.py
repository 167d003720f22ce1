"""Every command that README and docs show is one that works, and every page they link to is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.core import cli, config, overrides
from tutelage.core.arguments import parse_arguments
from tutelage.core.errors import ConfigError
from tutelage.multilabel.predict.command import PredictSettings
from tutelage.multilabel.results.exporting import ExportSettings as NetworkExport
from tutelage.text2sql.explore import config as explore_config
from tutelage.text2sql.export.command import ExportSettings as ModelExport
from tutelage.text2sql.inference import asking

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("experiments/*/README.md"))]
PRIMARY = {"train.py": "config", "evaluate.py": "evaluate", "explore.py": "explore"}
SMALL = ("ask.py", "export.py", "predict.py")


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


def overrides_of(changes: tuple[str, ...]) -> None:
    """Compose what ask.py changes of a run."""
    given = ["inference.model=m"] if "inference=api" in changes else []
    overrides.compose_config(["task=text2sql", *[text for text in changes if "…" not in text], *given])


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
    if script == "ask.py":
        settings = asking.parse(arguments)
        overrides_of(settings.changes)
        return
    if script in SMALL:
        language = any(argument.startswith("run=runs/text2sql") for argument in arguments)
        exported = ModelExport if language else NetworkExport
        parse_arguments(arguments, exported if script == "export.py" else PredictSettings, usage="")
        return
    given = [argument for argument in arguments if not argument.startswith("-")]
    if script == "evaluate.py" and any(o.startswith(("scoring.", "data.root=")) for o in given):
        return  # keys of a finished run's own config, which is not here
    if any(argument.startswith("run=") for argument in arguments):  # the run's own task: that of what is chosen
        chosen = [config.CONF / f"{key}/{value}.yaml" for key, _, value in (o.partition("=") for o in given)]
        given += sorted({f"task={task}" for path in chosen if path.is_file() for task in cli.tasks_of(path)})
    # These name what a run made.
    given = [o for o in given if not o.startswith(("run=", "against=", "predictions="))]
    monkeypatch.chdir(tmp_path)
    config.register()
    given = explore_config.register(given) if script == "explore.py" else given
    try:
        cli._check(PRIMARY[script], [*given, "run=here"], sweep="-m" in arguments)
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

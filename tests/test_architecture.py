"""The doors of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src"
HEAVY = {"torch", "transformers", "lightning"}
ROOMS = ("data", "database", "evaluation", "explore", "export", "inference", "model", "prompts", "results", "training")
# folder or file → what nothing in it may import
FORBIDDEN = {
    "tutelage/core": {"tutelage.multilabel", "tutelage.text2sql"},
    "tutelage/multilabel": {"tutelage.text2sql"},
    "tutelage/text2sql": {"tutelage.multilabel"},
    "tutelage/core/config.py": HEAVY,
    "tutelage/core/cli.py": HEAVY,
    "tutelage/multilabel/methods": {"lightning", "torchmetrics", "tutelage.core.run", "tutelage.multilabel.module"},
    "tutelage/multilabel/networks": {"tutelage.multilabel.methods", "tutelage.multilabel.results", "lightning"},
    "tutelage/multilabel/data": {"tutelage.multilabel.networks", "tutelage.multilabel.methods"},
    "tutelage/text2sql/explore": HEAVY | {"tutelage.text2sql.model", "tutelage.text2sql.training"},
    "tutelage/text2sql/api": HEAVY | {f"tutelage.text2sql.{room}" for room in ROOMS},
    "tutelage/text2sql/export": {"tutelage.text2sql.training", "tutelage.text2sql.inference", "lightning"},
    "tutelage/text2sql/database": HEAVY
    | {
        f"tutelage.text2sql.{room}"
        for room in ("data", "evaluation", "explore", "inference", "model", "prompts", "training")
    },
    # The published scorers: they read files and databases, and know nothing of models, runs or reports.
    "tutelage/text2sql/evaluation": HEAVY
    | {"jinja2"}
    | {
        f"tutelage.text2sql.{room}"
        for room in ("data", "explore", "inference", "model", "prompts", "results", "training")
    },
    "tutelage/text2sql/results": HEAVY
    | {f"tutelage.text2sql.{room}" for room in ("explore", "inference", "model", "prompts", "training")},
    "tutelage/text2sql/data": HEAVY
    | {f"tutelage.text2sql.{room}" for room in ("evaluation", "inference", "model", "prompts", "results", "training")},
    "tutelage/text2sql/prompts": {"tutelage.text2sql.training", "tutelage.text2sql.inference", "lightning"},
    "tutelage/text2sql/model": {"tutelage.text2sql.inference", "tutelage.text2sql.results", "lightning"},
    "tutelage/text2sql/inference": {"tutelage.text2sql.training", "tutelage.text2sql.results", "lightning"},
}
# A task's wiring is imported by nobody below it: it arrives by _target_.
WIRING = ("tutelage.multilabel.task", "tutelage.text2sql.task")
# only these stand at a task's top
TOP_FILES = {
    "tutelage/text2sql": {"__init__.py", "task.py"},
}


def imports_of(path: Path) -> set[str]:
    """Every module a file imports, and each name it takes from one, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("place", FORBIDDEN)
def test_nobody_goes_through_a_wall(place: str) -> None:
    files = [SRC / place] if place.endswith(".py") else sorted((SRC / place).rglob("*.py"))
    assert files
    for path in files:
        for name in imports_of(path):
            for wall in FORBIDDEN[place]:
                assert name != wall and not name.startswith(f"{wall}."), f"{path.relative_to(SRC)} imports {name}"


def test_rooms_do_not_import_the_wiring_above_them() -> None:
    for path in sorted(SRC.rglob("*.py")):
        for name in imports_of(path):
            assert not name.startswith(WIRING), f"{path.relative_to(SRC)} imports {name}"


def test_no_two_files_import_each_other() -> None:
    name_of = {path: ".".join(path.relative_to(SRC).with_suffix("").parts) for path in SRC.rglob("*.py")}
    imports = {name: imports_of(path) for path, name in name_of.items()}
    pairs = {(a, b) for a, found in imports.items() for b in found & imports.keys() if a in imports[b] and a != b}
    assert not pairs


def test_the_walls_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "leak.py"
    file.write_text("def f():\n    from tutelage.multilabel import task\n    import torch.nn as nn\n")
    assert {"tutelage.multilabel", "tutelage.multilabel.task", "torch.nn"} <= imports_of(file)


@pytest.mark.parametrize("place", TOP_FILES)
def test_a_task_has_rooms_and_not_loose_files(place: str) -> None:
    assert {path.name for path in (SRC / place).glob("*.py")} == TOP_FILES[place]

"""Notebooks are thin, stripped of output, and run."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stripped(path: Path) -> None:
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert len(cell["source"]) <= 20  # what is longer belongs into the package


def test_cam_distillation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(path for path in NOTEBOOKS if path.stem == "cam_distillation")
    small = "data.num_train=40 data.num_val=12 data.num_test=16 data.batch_size=8 trainer.max_epochs=1"
    monkeypatch.setenv(
        "TUTELAGE_NOTEBOOK", f"{small} trainer.threads=1 teacher.trainer.max_epochs=1 trainer.log_every_n_steps=1"
    )
    monkeypatch.setenv("TUTELAGE_NOTEBOOK_FOLDER", str(tmp_path / "run"))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    figures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(figures) == 3 and (tmp_path / "run" / "metrics.json").exists()
    assert "logit part" in notebook.cells[-1].outputs[0]["text"]

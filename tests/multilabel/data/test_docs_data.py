"""The code in docs/add_a_data_set.md works as it stands there."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from trees import draw

from tutelage.core import config
from tutelage.core.build import build, split
from tutelage.multilabel.data.datamodule import LoaderConfig

ROOT = Path(__file__).resolve().parents[3]


def test_data_set_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "add_a_data_set.md").read_text()
    [python], [yaml] = (re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) for language in ("python", "yaml"))
    (tmp_path / "flowers_of_the_page.py").write_text(python)
    monkeypatch.syspath_prepend(tmp_path)
    overlay = tmp_path / "conf" / "data"
    overlay.mkdir(parents=True)
    target = "flowers_of_the_page.Flowers"
    (overlay / "flowers.yaml").write_text(yaml.replace("tutelage.multilabel.data.flowers.Flowers", target))
    colours = ["red", "white|red", "yellow", ""]
    for part in ("train", "test"):
        names = [f"{part}{i}.png" for i in range(8)]
        for name in names:
            draw(tmp_path / name)
        rows = "\n".join(f"{name},{colours[i % 4]}" for i, name in enumerate(names))
        (tmp_path / f"{part}.csv").write_text(f"file,colours\n{rows}\n")

    config.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = ["data=flowers", f"data.root={tmp_path}", f"hydra.searchpath=[file://{tmp_path}/conf]"]
        cfg = compose("config", overrides=overrides)
    _, node = split(cfg.data, LoaderConfig, where="data")
    source = build(node, where="data")
    assert cfg.trainer.max_epochs == 40
    assert source.label_names == ("red", "white", "yellow")
    assert source.split("test").targets_NK.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]] * 2
    assert source.notes["protocol"] == "Flowers, official train and test split"
    assert len(source.split("val").ids) == 1

"""From conf/evaluate.yaml to scores."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tutelage.core import config
from tutelage.core.errors import ConfigError
from tutelage.text2sql.results.benchmark_command import score_command

CONF = Path(__file__).resolve().parents[3] / "conf"


def composed(*overrides: str) -> DictConfig:
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("evaluate", overrides=["task=text2sql", *overrides], return_hydra_config=True)
    assert isinstance(cfg, DictConfig)
    return cfg


def test_a_file_is_scored_into_out(spider_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.sql").write_text("SELECT 1\n" * 5)
    cfg = composed(
        "data=spider",
        f"data.root={spider_root}",
        f"predictions={tmp_path / 'mine.sql'}",
        f"store={tmp_path / 'store'}",
        f"out={tmp_path / 'scores'}",
        "mode=strict",
        "metrics=[execution]",
        "limits.seconds=7",
        "workers=1",
    )
    scores = score_command(cfg, folder=tmp_path / "unused")
    assert scores.limits.seconds == 7
    assert scores.limits.rows is None
    assert scores.metrics == ("execution",)
    assert {path.name for path in (tmp_path / "scores").iterdir()} == {"items.csv", "report.html", "scores.json"}
    assert not (tmp_path / "unused").exists()
    assert "spider dev, strict: 5 items" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=bird", "predictions=a.json"], "data.root: not given"),
        (["data=flights", "predictions=a.sql"], "no published scorer"),
        (["data=spider", "data.root=x", "predictions=a.sql", "+limits.hours=1"], "no key 'hours'"),
    ],
)
def test_what_is_missing_is_said(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        score_command(composed(*overrides, f"out={tmp_path}"), folder=tmp_path)

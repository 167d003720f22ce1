"""``evaluate.py task=text2sql predictions=…``: from a composed config to scores, and their files."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from tutelage.core.errors import ConfigError
from tutelage.text2sql.database.executor import Limits
from tutelage.text2sql.evaluation.gold import BenchmarkName
from tutelage.text2sql.evaluation.score import Scores, score_predictions
from tutelage.text2sql.results.benchmark_report import table, write_reports

_BENCHMARKS: dict[str, BenchmarkName] = {
    "tutelage.text2sql.data.spider.Spider": "spider",
    "tutelage.text2sql.data.bird.Bird": "bird",
    "tutelage.text2sql.data.defog.Defog": "defog",
}


def score_command(cfg: DictConfig, *, folder: Path) -> Scores:
    """Score what the config names, print the closing table, and say where the files are.

    Args:
        cfg: Composed from ``conf/evaluate.yaml``.
        folder: The run's folder; ``out`` is there unless it is given.

    Raises:
        ConfigError: A key is missing or says something that cannot be.
        DataError: Data or predictions are missing or do not fit together.
    """
    target = str(cfg.data.get("_target_"))
    if target not in _BENCHMARKS:
        raise ConfigError(
            "data",
            f"{target} has no published scorer",
            "choose data=spider, data=bird or data=defog, or score a run: run=…",
        )
    if OmegaConf.is_missing(cfg.data, "root"):
        raise ConfigError("data.root", "not given", "give the folder that holds the questions: data.root=…")
    files = [cfg.predictions] if isinstance(cfg.predictions, str) else list(cfg.predictions)
    out = Path(cfg.out) if cfg.out else folder
    scores = score_predictions(
        benchmark=_BENCHMARKS[target],
        root=Path(cfg.data.root),
        predictions=[Path(str(file)) for file in files],
        store=Path(cfg.store),
        mode=cfg.mode,
        on_missing=cfg.on_missing,
        split=_split(cfg, _BENCHMARKS[target]),
        variants=Path(cfg.data.variants) if cfg.data.get("variants") else None,
        metrics=None if cfg.metrics is None else [str(metric) for metric in cfg.metrics],
        keep_distinct=cfg.keep_distinct,
        limits=_limits(cfg),
        workers=cfg.workers,
    )
    write_reports(scores, out)
    print(table(scores))
    print(f"  {out / 'report.html'}")
    return scores


def _split(cfg: DictConfig, benchmark: BenchmarkName) -> str:
    """The split that is asked for, or else the one that the data's config tests on."""
    if cfg.split != "dev":
        return str(cfg.split)
    if benchmark == "defog":
        return "with_unanswerable" if cfg.data.unanswerable else "questions"
    return (
        str(cfg.data.get("test", "dev")) if benchmark == "spider" else Path(str(cfg.data.get("questions", "dev"))).stem
    )


def _limits(cfg: DictConfig) -> Limits | None:
    if cfg.limits is None:
        return None
    known = set(Limits.__slots__)
    if strange := set(cfg.limits) - known:
        raise ConfigError("limits", f"no key {min(strange)!r}", f"keys there: {', '.join(sorted(known))}")
    values = OmegaConf.to_container(cfg.limits, resolve=True)
    assert isinstance(values, dict)
    return Limits(**{str(key): value for key, value in values.items()})

"""``evaluate.py task=text2sql predictions=…``: from a composed config to scores, and their files."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from tutelage.core.errors import ConfigError
from tutelage.text2sql.data.scorecard import SETS
from tutelage.text2sql.database.executor import Limits
from tutelage.text2sql.evaluation.gold import BenchmarkName
from tutelage.text2sql.evaluation.score import Scores, score_predictions
from tutelage.text2sql.results.benchmark_report import table, write_reports
from tutelage.text2sql.results.scorecard import PAGE, Card, make_card, predictions_in, write_card
from tutelage.text2sql.results.scorecard import table as table_of_card

_SCORECARD = "tutelage.text2sql.data.scorecard.Scorecard"
_BENCHMARKS: dict[str, BenchmarkName] = {
    "tutelage.text2sql.data.spider.Spider": "spider",
    "tutelage.text2sql.data.bird.Bird": "bird",
    "tutelage.text2sql.data.defog.Defog": "defog",
}


def is_benchmark(cfg: DictConfig) -> bool:
    """Whether the data have a published scorer."""
    return str(cfg.data.get("_target_")) in _BENCHMARKS


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
            "choose data=spider, data=bird or data=defog, your own questions (data=own, data=jsonl), or a run: run=…",
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
        dialect=cfg.data.get("dialect", "sqlite"),
        server=cfg.data.get("server"),
        metrics=None if cfg.metrics is None else [str(metric) for metric in cfg.metrics],
        keep_distinct=cfg.keep_distinct,
        limits=_limits(cfg),
        workers=cfg.workers,
    )
    write_reports(scores, out)
    print(table(scores))
    print(f"  {out / 'report.html'}")
    return scores


def is_scorecard(cfg: DictConfig) -> bool:
    """Whether all sets are to be scored."""
    return str(cfg.data.get("_target_")) == _SCORECARD


def scorecard_command(cfg: DictConfig, *, folder: Path) -> Card:
    """Score a folder of predictions, a file for each set, and write the page.

    Raises:
        ConfigError: A key is missing or says something that cannot be.
        DataError: Not one set can be scored.
    """
    if not isinstance(cfg.predictions, str):
        what = f"{len(cfg.predictions)} files"
        hint = f"give one folder that holds a file for each set: {', '.join(SETS)}"
        raise ConfigError("predictions", what, hint)
    source = Path(cfg.predictions)
    predictions, absent = predictions_in(source)
    given = {owner: cfg.data.get(owner) for owner in ("spider", "bird", "defog")}
    return write_scorecard(
        Path(cfg.out) if cfg.out else folder,
        name=source.name,
        folders={owner: Path(path) for owner, path in given.items() if path},
        variants=Path(cfg.data.variants) if cfg.data.variants else None,
        defog_server=cfg.data.defog_server,
        predictions=predictions,
        absent=absent,
        store=Path(cfg.store),
        limits=_limits(cfg),
        workers=cfg.workers,
    )


def write_scorecard(
    out: Path,
    *,
    name: str,
    folders: Mapping[str, Path],
    variants: Path | None,
    defog_server: str | None,
    predictions: Mapping[str, Path],
    absent: Mapping[str, str],
    store: Path,
    limits: Limits | None,
    workers: int,
) -> Card:
    """Score every set that there are predictions for, write the page, and print what is on it."""
    card = make_card(
        folders=folders,
        variants=variants,
        defog_server=defog_server,
        predictions=predictions,
        absent=absent,
        name=name,
        store=store,
        limits=limits,
        workers=workers,
    )
    write_card(card, out)
    print(table_of_card(card))
    print(f"  {out / PAGE}")
    return card


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

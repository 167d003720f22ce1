"""One page about one system: every set that is at hand by its own rules, and what the sets say together.

Nothing is averaged over sets: they ask different things, and another set that is missing would change the mean.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.store import write_atomically
from tutelage.core.templates import render_page
from tutelage.text2sql.data.scorecard import SETS, SetName
from tutelage.text2sql.database.defog import DefogDialect
from tutelage.text2sql.database.executor import Limits
from tutelage.text2sql.evaluation.gold import Benchmark, Item, load_benchmark, load_defog
from tutelage.text2sql.evaluation.score import Score, Scores, score_benchmark
from tutelage.text2sql.evaluation.significance import McNemar, bootstrap_interval, mcnemar
from tutelage.text2sql.results.benchmark_report import versions, visible, write_reports
from tutelage.text2sql.results.operators import OPERATORS, UNPARSED, operators_of

PAGE = "scorecard.html"
NUMBERS = "scorecard.json"
_FORMS = (".jsonl", ".json", ".sql", ".txt")
# One and the same question in two sets.
SYNONYMS = ("spider_dev", "spider_syn")
CORRECTED = ("bird_dev", "bird_corrected")


@dataclass(frozen=True, slots=True)
class Paired:
    """How answers to the same questions differ between two sets.

    Attributes:
        asked: Questions whose gold is the same in both sets, and whose words differ.
        same_words: Questions of the same gold and words; they are left out.
        other_gold: Questions whose gold differs; they are left out.
        other_sql: To how many of ``asked`` the system gave another query.
        right_before, right_after: Right answers in the first and in the second set.
        test: Of the difference.
    """

    asked: int
    same_words: int
    other_gold: int
    other_sql: int
    right_before: int
    right_after: int
    test: McNemar


@dataclass(frozen=True, slots=True)
class Flip:
    """An item whose verdict another label changes."""

    id: str
    question: str
    before: bool
    after: bool
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Relabelled:
    """What corrected labels change.

    Attributes:
        items: Questions that both sets have.
        before: The score on them with the published labels.
        after: With the corrected ones.
        flips: Items whose verdict changes.
        test: Of the two scores.
    """

    items: int
    before: Score
    after: Score
    flips: list[Flip]
    test: McNemar

    @property
    def conclusion(self) -> str:
        """Whether the correction changes more than chance would."""
        if not self.flips:
            return "No verdict changes."
        sure = "more than chance" if self.test.p_value < 0.05 else "no more than chance could"
        moved = self.after.value - self.before.value
        return f"{len(self.flips)} verdicts change; the score moves by {moved:+.1f}, {sure}."


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that the page shows.

    Attributes:
        name: Of the system.
        scores: By set, in the order of `SETS`.
        absent: Why the other sets are not scored.
        operators: By set: each kind of SQL in its golds, with the first metric on the items that have it.
        synonyms: Spider dev against Spider-Syn; None where one is missing.
        corrected: BIRD's labels against the corrected ones; None where one is missing.
    """

    name: str
    scores: dict[str, Scores]
    absent: dict[str, str]
    operators: dict[str, dict[str, Score]]
    synonyms: Paired | None
    corrected: Relabelled | None


def make_card(
    *,
    folders: Mapping[str, Path],
    variants: Path | None,
    defog_server: str | None,
    predictions: Mapping[str, Path],
    absent: Mapping[str, str],
    name: str,
    store: Path,
    limits: Limits | None,
    workers: int,
) -> Card:
    """Score a system on every set that it has predictions for.

    Args:
        folders: Of ``spider``, ``bird`` and ``defog``, as far as they are there.
        variants: Of Spider's variants.
        defog_server: The URL of the PostgreSQL server that has Defog's databases.
        predictions: A file for each set.
        absent: Why sets have none.
        name: Of the system.
        store: Where gold results are kept.
        limits: On each query.
        workers: Processes that run queries.

    Raises:
        DataError: Not one set can be scored.
    """
    scores: dict[str, Scores] = {}
    missing = dict(absent)
    for key, which in SETS.items():
        if key not in predictions:
            missing.setdefault(key, "no predictions for it")
            continue
        if which.owner not in folders:
            missing[key] = f"data.{which.owner} is not given"
            continue
        try:
            data = _load(which, folders[which.owner], variants=variants, server=defog_server)
            scores[key] = score_benchmark(
                data, predictions=[predictions[key]], store=store, limits=limits, workers=workers
            )
        except (DataError, ConfigError) as error:
            missing[key] = str(error)
    if not scores:
        reasons = "; ".join(f"{key}: {why}" for key, why in missing.items())
        raise DataError("predictions", f"no set can be scored ({reasons})", "give predictions or data for one of them")
    return Card(
        name=name,
        scores=scores,
        absent={key: missing[key] for key in SETS if key in missing},
        operators={key: by_operator(found) for key, found in scores.items()},
        synonyms=paired(*(scores[key] for key in SYNONYMS)) if scores.keys() >= set(SYNONYMS) else None,
        corrected=relabelled(*(scores[key] for key in CORRECTED)) if scores.keys() >= set(CORRECTED) else None,
    )


def _load(which: SetName, root: Path, *, variants: Path | None, server: str | None) -> Benchmark:
    if which.owner != "defog":
        return load_benchmark(which.owner, root=root, split=which.split, on_missing="skip", variants=variants)
    dialect: DefogDialect
    match which.split:
        case "duckdb" | "postgresql":
            dialect = which.split
        case _:
            dialect = "sqlite"
    return load_defog(root, unanswerable=True, on_missing="skip", dialect=dialect, server=server)


def by_operator(scores: Scores) -> dict[str, Score]:
    """The first metric on the items whose gold has each kind of SQL; an item may have several."""
    places: dict[str, list[int]] = {}
    for place, item in enumerate(scores.benchmark.items):
        for operator in operators_of(item.sql):
            places.setdefault(operator, []).append(place)
    (system,) = scores.systems
    return {
        operator: scores.score(system, scores.metrics[0], scores.mode, places[operator])
        for operator in (*OPERATORS, UNPARSED)
        if operator in places
    }


def paired(before: Scores, after: Scores) -> Paired:
    """Compare the answers to the same questions in other words; the two sets have one order and the same ids."""
    first, second = _by_id(before), _by_id(after)
    both = [id for id in first if id in second]
    same_gold = [id for id in both if _plain(first[id][0].sql) == _plain(second[id][0].sql)]
    asked = [id for id in same_gold if _plain(first[id][0].question) != _plain(second[id][0].question)]
    ours, theirs = ([found[id][2] for id in asked] for found in (first, second))
    return Paired(
        asked=len(asked),
        same_words=len(same_gold) - len(asked),
        other_gold=len(both) - len(same_gold),
        other_sql=sum(_plain(first[id][1]) != _plain(second[id][1]) for id in asked),
        right_before=round(sum(ours)),
        right_after=round(sum(theirs)),
        test=mcnemar(ours, theirs),
    )


def relabelled(before: Scores, after: Scores) -> Relabelled:
    """Compare verdicts under published and under corrected labels, on the questions that both sets have."""
    first, second = _by_id(before), _by_id(after)
    both = [id for id in second if id in first]
    ours, theirs = ([found[id][2] for id in both] for found in (first, second))
    flips = [
        Flip(
            id=id,
            question=second[id][0].question,
            before=first[id][2] == 1.0,
            after=second[id][2] == 1.0,
            changed=_changed(first[id][0], second[id][0]),
        )
        for id in both
        if first[id][2] != second[id][2]
    ]
    return Relabelled(len(both), _score(ours), _score(theirs), flips, mcnemar(ours, theirs))


def _by_id(scores: Scores) -> dict[str, tuple[Item, str, float]]:
    (system,) = scores.systems
    values = system.values(scores.metrics[0], scores.mode)
    items = scores.benchmark.items
    return {
        item.id: (item, query, value)
        for item, query, value in zip(items, system.predictions.queries, values, strict=True)
    }


def _changed(before: Item, after: Item) -> tuple[str, ...]:
    parts = (
        ("question", before.question, after.question),
        ("SQL", before.sql, after.sql),
        ("evidence", before.evidence, after.evidence),
    )
    return tuple(name for name, a, b in parts if _plain(a) != _plain(b)) or ("the answer alone",)


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip("; ").lower()


def _score(values: Sequence[float]) -> Score:
    low, high = bootstrap_interval(values)
    return Score(100 * sum(values) / len(values) if values else float("nan"), 100 * low, 100 * high, len(values))


# ---- where predictions come from ------------------------------------------------------------------------------------


def predictions_in(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Find ``<set>.jsonl``, ``.json``, ``.sql`` or ``.txt`` of each set in a folder.

    Returns:
        The files that are there, and why there is none for the other sets.

    Raises:
        DataError: No such folder, or it has none of these files.
    """
    names = ", ".join(SETS)
    if not folder.is_dir():
        raise DataError("predictions", f"no folder {folder}", f"give a folder with a file for each set: {names}")
    found = {key: path for key in SETS for form in reversed(_FORMS) if (path := folder / f"{key}{form}").is_file()}
    if not found:
        raise DataError("predictions", f"no file of a set in {folder}", f"name the files by their sets: {names}")
    return found, {key: f"no {key}.* in {folder}" for key in SETS if key not in found}


def split_predictions(path: Path, out: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Write the answers of a run or a model, which were given to all sets at once, as a file a set."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: dict[str, Path] = {}
    for key, which in SETS.items():
        own = [record for record in records if str(record["id"]).startswith(which.prefix)]
        if own:
            found[key] = out / key / "predictions.jsonl"
            found[key].parent.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in own)
            write_atomically(found[key], lines)
    return found, {key: "none of its questions was asked" for key in SETS if key not in found}


# ---- what is written ------------------------------------------------------------------------------------------------


def write_card(card: Card, out: Path) -> None:
    """Write each set's own report into a folder of its name, then the numbers, then the page."""
    for key, scores in card.scores.items():
        write_reports(scores, out / key)
    content = json.dumps(as_json(card), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(out / NUMBERS, content + "\n")
    write_atomically(out / PAGE, visible(_html(card)))


def table(card: Card) -> str:
    """The closing table, as text."""
    width = max(len(SETS[key].title) for key in SETS)
    lines = [f"{card.name}: scorecard"]
    for key, scores in card.scores.items():
        (system,) = scores.systems
        metric = scores.metrics[0]
        score, gold = (scores.score(part, metric, scores.mode) for part in (system, scores.gold))
        shown = f"{metric} {score.value:6.2f} [{score.low:.2f}, {score.high:.2f}]"
        lines.append(f"  {SETS[key].title:<{width}}  {shown} on {score.items} items; gold {gold.value:.2f}")
    lines += [f"  {SETS[key].title:<{width}}  not scored: {why}" for key, why in card.absent.items()]
    if card.synonyms is not None:
        pair = card.synonyms
        lines.append(
            f"  synonyms: {pair.other_sql} of {pair.asked} queries changed; right before {pair.right_before}, after "
            f"{pair.right_after}; McNemar p = {pair.test.p_value:.3g}"
        )
    if card.corrected is not None:
        lines.append(f"  corrected labels: {card.corrected.conclusion}")
    return "\n".join(lines)


def as_json(card: Card) -> dict[str, Any]:
    """What ``scorecard.json`` holds; each set's own numbers are in its folder's ``scores.json``."""
    return {
        "system": card.name,
        "sets": {
            key: {
                "title": SETS[key].title,
                "metrics": {
                    metric: {
                        "system": _number(scores.score(scores.systems[0], metric, scores.mode)),
                        "gold": _number(scores.score(scores.gold, metric, scores.mode)),
                    }
                    for metric in scores.metrics
                },
                f"by_{scores.group_name}": {
                    group: _number(scores.score(scores.systems[0], scores.metrics[0], scores.mode, places))
                    for group, places in scores.places_by_group().items()
                },
                "by_operator": {name: _number(score) for name, score in card.operators[key].items()},
                "statuses": dict(scores.systems[0].statuses),
                "without_database": scores.benchmark.missing,
                "not_asked": scores.benchmark.not_asked,
                "abstentions": scores.abstentions(scores.systems[0]),
            }
            for key, scores in card.scores.items()
        },
        "absent": card.absent,
        "synonyms": None
        if card.synonyms is None
        else {
            "asked": card.synonyms.asked,
            "same_words": card.synonyms.same_words,
            "other_gold": card.synonyms.other_gold,
            "other_sql": card.synonyms.other_sql,
            "right_before": card.synonyms.right_before,
            "right_after": card.synonyms.right_after,
            "only_before": card.synonyms.test.only_first,
            "only_after": card.synonyms.test.only_second,
            "p_value": card.synonyms.test.p_value,
        },
        "corrected": None
        if card.corrected is None
        else {
            "items": card.corrected.items,
            "before": _number(card.corrected.before),
            "after": _number(card.corrected.after),
            "flips": [
                {"id": flip.id, "before": flip.before, "after": flip.after, "changed": list(flip.changed)}
                for flip in card.corrected.flips
            ],
            "p_value": card.corrected.test.p_value,
        },
        "versions": versions(),
    }


def _number(score: Score) -> dict[str, Any]:
    known = bool(score.items)  # JSON has no NaN
    return {
        "value": score.value if known else None,
        "interval_95": [score.low, score.high] if known else None,
        "items": score.items,
    }


def _html(card: Card) -> str:
    operators = [name for name in (*OPERATORS, UNPARSED) if any(name in found for found in card.operators.values())]
    return render_page(
        "tutelage.text2sql.results",
        "scorecard.html.jinja",
        card=card,
        sets=SETS,
        operators=operators,
        versions=versions(),
    )

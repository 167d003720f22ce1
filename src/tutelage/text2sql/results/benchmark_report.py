"""The files that a scoring leaves: scores.json, items.csv, and report.html for people."""

import csv
import difflib
import io
import json
import platform
import re
import sqlite3
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from tutelage.core.store import write_atomically
from tutelage.core.templates import render_page
from tutelage.text2sql.evaluation.gold import DOUBTFUL_DATABASES
from tutelage.text2sql.evaluation.outcome import Outcome, Preview
from tutelage.text2sql.evaluation.score import MODES, Mode, Scores, SystemScore

# What no HTML page may hold: control characters, and halves of surrogate pairs.
_INVISIBLE = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\ufdd0-\\ufdef\\ufffe\\uffff]")
_WORDS = re.compile(r"\s+|\w+|'[^']*'|\"[^\"]*\"|.", re.DOTALL)
_LONGEST_CELL = 60
_LONGEST_QUERY = 5_000


def write_reports(scores: Scores, out: Path) -> None:
    """Write everything into a folder; of two systems, each one's items go into a folder of its own name.

    What scoring took long to find is written first, and what is drawn from it last.
    """
    for name, system in zip(system_names(scores), scores.systems, strict=True):
        folder = out if len(scores.systems) == 1 else out / name
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "items.csv", items_csv(scores, system))
    content = json.dumps(as_json(scores), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "scores.json", content + "\n")
    write_atomically(out / "report.html", visible(_html(scores)))


def table(scores: Scores) -> str:
    """The closing table, as text."""
    skipped, not_asked = sum(scores.benchmark.missing.values()), scores.benchmark.not_asked
    lines = [
        f"{scores.benchmark.name} {scores.benchmark.split}, {scores.mode}: {len(scores.groups)} items"
        + (f" of {len(scores.groups) + skipped + not_asked}" if skipped or not_asked else "")
        + (f"; no database for {skipped}" if skipped else "")
        + (f"; {not_asked} not asked (data.test_size)" if not_asked else "")
    ]
    lines += [f"  not scored: {db_id}, {why}" for db_id, why in scores.benchmark.unreadable.items()]
    width = max(len(system.predictions.name) for system in (*scores.systems, scores.gold))
    for system in (scores.gold, *scores.systems):
        parts = []
        for metric in scores.metrics:
            score = scores.score(system, metric, scores.mode)
            parts.append(f"{metric} {score.value:6.2f} [{score.low:.2f}, {score.high:.2f}]")
        other = ", ".join(f"{count} {status}" for status, count in system.statuses.items())
        lines.append(f"  {system.predictions.name:<{width}}  {'   '.join(parts)}   ({other})")
        if differing := sum(bool(outcome.reasons) for outcome in system.outcomes):
            lines.append(f"  {'':<{width}}  official and strict differ on {differing} items")
        if abstentions := scores.abstentions(system):
            lines.append(f"  {'':<{width}}  {', '.join(f'{count} {what}' for what, count in abstentions.items())}")
    if (kept := scores.places_not_today()) is not None:
        parts = [f"{system.predictions.name} {_short(scores, system, kept)}" for system in scores.systems]
        lines.append(f"  without {len(scores.benchmark.today)} questions that ask for today: {', '.join(parts)}")
    for metric, test in scores.comparison().items():
        lines.append(
            f"  {metric}: only the first is right on {test.only_first}, only the second on {test.only_second}; "
            f"McNemar p = {test.p_value:.3g}"
        )
    if scores.suspicious:
        lines.append(f"  suspicious golds: {len(scores.suspicious)} (report.html lists them)")
    return "\n".join(lines)


def _short(scores: Scores, system: SystemScore, places: Sequence[int]) -> str:
    score = scores.score(system, scores.metrics[0], scores.mode, places)
    return f"{scores.metrics[0]} {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"


def versions() -> dict[str, str]:
    """What a score may depend on beside the data."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "sqlparse": version("sqlparse"),
        "tutelage": version("tutelage"),
    }


def as_json(scores: Scores) -> dict[str, Any]:
    """What ``scores.json`` holds."""
    return {
        "benchmark": scores.benchmark.name,
        "split": scores.benchmark.split,
        "mode": scores.mode,
        "items": len(scores.groups),
        "skipped": scores.benchmark.missing,
        "not_asked": scores.benchmark.not_asked,
        "unreadable": dict(scores.benchmark.unreadable),
        "keep_distinct": scores.keep_distinct,
        f"{scores.group_name}_differs": scores.num_other_groups,
        "systems": [_system_json(scores, system) for system in scores.systems],
        "gold": _system_json(scores, scores.gold),
        "suspicious_golds": {scores.benchmark.items[place].id: what for place, what in scores.suspicious.items()},
        "comparison": {
            metric: {"only_first": test.only_first, "only_second": test.only_second, "p_value": test.p_value}
            for metric, test in scores.comparison().items()
        },
        "limits": {
            "seconds": scores.limits.seconds,
            "rows": scores.limits.rows,
            "bytes": scores.limits.bytes,
            "memory_mb": scores.limits.memory_mb,
        },
        "versions": versions(),
    }


def _system_json(scores: Scores, system: SystemScore) -> dict[str, Any]:
    def numbers(mode: Mode, places: Sequence[int] | None = None) -> dict[str, Any]:
        found = {metric: scores.score(system, metric, mode, places) for metric in scores.metrics}
        return {
            metric: {
                # JSON has no NaN, which a score over no items is.
                "value": score.value if score.items else None,
                "interval_95": [score.low, score.high] if score.items else None,
                "items": score.items,
            }
            for metric, score in found.items()
        }

    found: dict[str, Any] = {
        "name": system.predictions.name,
        "form": system.predictions.form,
        "official": numbers("official"),
        "strict": numbers("strict"),
        f"by_{scores.group_name}": {
            name: numbers(scores.mode, places) for name, places in scores.places_by_group().items()
        },
        "by_database": {name: numbers(scores.mode, places) for name, places in scores.places_by_database().items()},
        "statuses": dict(system.statuses),
        "differences": system.differences,
    }
    if (kept := scores.places_not_doubtful()) is not None:
        without = {"databases": list(DOUBTFUL_DATABASES)} | {mode: numbers(mode, kept) for mode in MODES}
        found["without_doubtful_databases"] = without
    if (asked := scores.places_not_today()) is not None:
        today = sorted(scores.benchmark.today)
        found["without_questions_that_ask_for_today"] = {"questions": today} | {m: numbers(m, asked) for m in MODES}
    if abstentions := scores.abstentions(system):
        found["abstentions"] = abstentions
    return found


def system_names(scores: Scores) -> list[str]:
    """The names of the systems, told apart where they are the same."""
    names = [system.predictions.name for system in scores.systems]
    return names if len(set(names)) == len(names) else [f"{name}-{number}" for number, name in enumerate(names, 1)]


def items_csv(scores: Scores, system: SystemScore) -> str:
    """A row an item, in the data's order; the official columns first, the strict ones behind."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    spider = scores.benchmark.name == "spider"  # BIRD's difficulty is given, not worked out
    strict = [f"{name}_strict" for name in (*([scores.group_name] if spider else []), *scores.metrics, "status")]
    writer.writerow(["id", "db_id", scores.group_name, *scores.metrics, "status", *strict])
    for place, (item, outcome) in enumerate(zip(scores.benchmark.items, system.outcomes, strict=True)):
        writer.writerow(
            [
                item.id,
                item.db_id,
                scores.official_groups[place],
                *(_number(outcome.official[metric]) for metric in scores.metrics),
                outcome.status,
                *([scores.strict_groups[place]] if spider else []),
                *(_number(outcome.strict[metric]) for metric in scores.metrics),
                outcome.status_strict,
            ]
        )
    return buffer.getvalue()


def _number(value: float) -> str:
    return str(int(value)) if value in (0, 1) else repr(float(value))


class _Case(NamedTuple):
    """An item as the page shows it."""

    id: str
    db_id: str
    group: str
    question: str
    evidence: str
    status: str
    title: str
    message: str
    reasons: tuple[str, ...]
    suspicions: Sequence[str]
    gold_sql: Markup
    predicted_sql: Markup
    gold: Preview
    predicted: Preview


def _html(scores: Scores) -> str:
    names = system_names(scores)
    systems = [(name, system, _cases(scores, system)) for name, system in zip(names, scores.systems, strict=True)]
    items = scores.benchmark.items
    return render_page(
        "tutelage.text2sql.results",
        "benchmark_report.html.jinja",
        filters={"cell": _cell},
        scores=scores,
        systems=systems,
        rows=[("gold, as a prediction", scores.gold), *zip(names, scores.systems, strict=True)],
        not_today=scores.places_not_today(),
        not_doubtful=scores.places_not_doubtful(),
        doubtful=DOUBTFUL_DATABASES,
        skipped=scores.benchmark.missing,
        comparison=scores.comparison(),
        breakdowns=[
            (scores.group_name, scores.places_by_group()),
            ("database", scores.places_by_database()),
        ],
        suspicious=[(items[place], what) for place, what in scores.suspicious.items()],
        disagreements=_disagreements(scores),
        versions=versions(),
    )


def _cases(scores: Scores, system: SystemScore) -> list[_Case]:
    """The items that are wrong by the headline's rules, or judged differently by the other rules."""
    cases = []
    for place, outcome in enumerate(system.outcomes):
        status = outcome.status if scores.mode == "official" else outcome.status_strict
        if status == "correct" and not outcome.reasons:
            continue
        item, query = scores.benchmark.items[place], system.predictions.queries[place]
        gold_sql, predicted_sql = marked_difference(item.sql, query)
        case = _Case(
            id=item.id,
            db_id=item.db_id,
            group=scores.groups[place],
            question=item.question,
            evidence=item.evidence,
            status=status,
            title=_title(scores, outcome),
            message=outcome.message,
            reasons=outcome.reasons,
            suspicions=scores.suspicious.get(place, []),
            gold_sql=gold_sql,
            predicted_sql=predicted_sql,
            gold=outcome.gold,
            predicted=outcome.predicted,
        )
        cases.append(case)
    return cases


def _title(scores: Scores, outcome: Outcome) -> str:
    parts = []
    for metric in scores.metrics:
        official, strict = _number(outcome.official[metric]), _number(outcome.strict[metric])
        parts.append(f"{metric} {official}" + (f" (strict {strict})" if strict != official else ""))
    return ", ".join(parts)


def _disagreements(scores: Scores) -> list[tuple[str, str, str, str]]:
    """Of two systems: the items that only one has right: id, database, question, who."""
    if len(scores.systems) < 2:
        return []
    names = system_names(scores)
    first, second = (system.values(scores.metrics[0], scores.mode) for system in scores.systems)
    return [
        (item.id, item.db_id, item.question, names[0] if a > b else names[1])
        for item, a, b in zip(scores.benchmark.items, first, second, strict=True)
        if a != b
    ]


def marked_difference(gold: str, predicted: str) -> tuple[Markup, Markup]:
    """Both queries as HTML, with the words marked that the other has not. Case and white space do not count."""
    queries = [query[:_LONGEST_QUERY] for query in (gold, predicted)]
    ours, theirs = (_WORDS.findall(query) for query in queries)

    def key(words: list[str]) -> list[str]:
        return [" " if word.isspace() else word if word[0] in "'\"" else word.lower() for word in words]

    matcher = difflib.SequenceMatcher(None, key(ours), key(theirs), autojunk=False)
    marked: tuple[list[Markup], list[Markup]] = ([], [])
    for operation, a1, a2, b1, b2 in matcher.get_opcodes():
        for side, part, tag in ((marked[0], ours[a1:a2], "del"), (marked[1], theirs[b1:b2], "ins")):
            text = escape("".join(part))
            side.append(text if operation == "equal" or not text.strip() else Markup(f"<{tag}>{text}</{tag}>"))
    return Markup().join(marked[0]), Markup().join(marked[1])


def visible(page: str) -> str:
    r"""Show characters that a page cannot hold by their number, as ``\x00`` or ``\ud800``."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), page)


def _cell(value: Any) -> str:
    text = "NULL" if value is None else repr(value) if isinstance(value, bytes) else str(value)
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"

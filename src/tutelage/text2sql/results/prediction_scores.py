"""Anybody's predictions, scored on one's own questions: whatever the dialect, where the databases lie."""

from collections.abc import Sequence
from pathlib import Path

from tutelage.core.results import METRICS, write_json
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.evaluation.gold import Item
from tutelage.text2sql.evaluation.predictions import read_predictions
from tutelage.text2sql.results.items import ITEMS, write_items
from tutelage.text2sql.results.scoring import ExecutionScorer, accuracy


def score_own(
    predictions: Path, examples: Sequence[Example], *, scorer: ExecutionScorer, out: Path
) -> dict[str, float | int | str]:
    """Score a file of predictions by what its queries give, print the score, and write ``items.csv``.

    Args:
        predictions: In any form that ``read_predictions`` knows.
        examples: The questions, with their gold queries.
        scorer: Of their databases.
        out: A folder for the files.

    Raises:
        DataError: The file cannot be read, or does not belong to these questions.
    """
    items = [Item(example.id, example.db_id, example.question, example.sql or "") for example in examples]
    read = read_predictions(predictions, items=items, all_items=items)
    asked = [place for place in range(len(items)) if place not in read.not_asked]
    scored = scorer.score([examples[place] for place in asked], [read.queries[place] for place in asked])
    found = accuracy(scored)
    metrics: dict[str, float | int | str] = {
        "test/ex": found.percent,
        "test/ex_low": found.low,
        "test/ex_high": found.high,
        "test/ex_count": float(found.count),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_items(out / ITEMS, scored)
    write_json(out / METRICS, metrics)
    print(
        f"{read.name}: execution accuracy {found.percent:.1f} % [{found.low:.1f}, {found.high:.1f}] "
        f"of {found.count} questions\n  {out / ITEMS}"
    )
    if broken := sum(item.right is None for item in scored):
        print(f"  {broken} questions are left out: their gold query does not run")
    return metrics

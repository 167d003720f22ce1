"""The files that an exploration leaves."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.core.store import write_atomically
from tutelage.text2sql.database.schema import Catalog, Dialect
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.graph import Graph
from tutelage.text2sql.explore.knowledge import Knowledge
from tutelage.text2sql.explore.outcome import Outcome
from tutelage.text2sql.explore.report import write_report

_PAIRS = pa.schema(
    {
        "id": pa.string(),
        "db_id": pa.string(),
        "level": pa.int32(),
        "question": pa.string(),
        "sql": pa.string(),
        "operators": pa.list_(pa.string()),
        "sampler": pa.string(),
        "parent": pa.string(),
        "walk": pa.int64(),
        "columns": pa.list_(pa.string()),
        "tables": pa.list_(pa.string()),
        "state": pa.string(),  # JSON: each synthesizer has its own shape
        "evidence": pa.string(),
        "solved": pa.float64(),
    }
)
_REJECTED = pa.schema(
    {
        "id": pa.string(),
        "walk": pa.int64(),
        "level": pa.int32(),
        "parent": pa.string(),
        "question": pa.string(),
        "sql": pa.string(),
        "operators": pa.list_(pa.string()),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


def write_outputs(
    folder: Path,
    *,
    outcome: Outcome,
    catalog: Catalog,
    graph: Graph,
    facts: Facts,
    knowledge: Knowledge,
    dialect: Dialect,
) -> dict[str, Any]:
    """Write all files but the manifest.

    Args:
        folder: Where to.
        outcome: What was found.
        catalog: The database.
        graph: Its graph.
        facts: What it means.
        knowledge: How it is joined and asked.
        dialect: The user's; where it is not SQLite's, each pair also carries its query as it ran there, as
            ``native_sql``.

    Returns:
        Counts for the manifest.
    """
    records = [pair.to_json() for pair in outcome.pairs]
    schema = _PAIRS
    if dialect != "sqlite":
        schema = schema.append(pa.field("native_sql", pa.string()))
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_atomically(folder / "pairs.jsonl", "".join(lines))
    rows = [{**record, "state": json.dumps(record["state"], ensure_ascii=False)} for record in records]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "pairs.parquet")
    rejected = [asdict(item) for item in outcome.rejected]
    pq.write_table(pa.Table.from_pylist(rejected, schema=_REJECTED), folder / "rejected.parquet")
    graph.write_parquet(folder)
    graph.write_graphml(folder / "graph.graphml")
    knowledge.write_jsonl(folder / "knowledge.jsonl")
    write_report(folder / "report.html", outcome=outcome, catalog=catalog, graph=graph, facts=facts)
    return {"counts": _counts(outcome), "catalog_notes": list(catalog.notes)}


def _counts(outcome: Outcome) -> dict[str, Any]:
    return {
        "walks": outcome.num_walks,
        "pairs": len(outcome.pairs),
        "pairs_by_level": _by(str(pair.level) for pair in outcome.pairs),
        "pairs_by_sampler": _by(pair.sampler for pair in outcome.pairs),
        "rejected": len(outcome.rejected),
        "rejected_by_reason": _by(item.reason for item in outcome.rejected),
    }


def _by(keys: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(keys).items()))

"""The model card of an exported language model: what it is, how it was scored, how it is asked, where it fails."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tutelage.core import results
from tutelage.core.task import Metrics
from tutelage.core.templates import render_card
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.schema import Catalog, Column, ForeignKey, Table
from tutelage.text2sql.export.folder import Exported
from tutelage.text2sql.prompts import Prompt
from tutelage.text2sql.results.items import ITEMS, read_items
from tutelage.text2sql.results.report import PROTOCOL, groups, summary


def write(cfg: DictConfig, prompt: Prompt, exported: Exported, *, metrics: Metrics, run: Path) -> str:
    """Write the card, from what the run left.

    Args:
        cfg: The run's config.
        prompt: How it was asked.
        exported: What was written beside the card.
        metrics: The run's scores.
        run: The run's folder.
    """
    manifest = results.read_json(run / results.MANIFEST)
    columns, rows = summary(metrics, trained=True)
    items = read_items(run / ITEMS) if (run / ITEMS).is_file() else []
    messages = prompt.messages(EXAMPLE, SHOP, matches={("shop", "city"): ["Bonn"]})
    of_hub = exported.base.count("/") == 1 and not Path(exported.base).exists()
    header: dict[str, Any] = {
        **({"base_model": exported.base} if of_hub else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["text-to-sql"],
    }
    values = {
        "data": str(cfg.data._target_).rsplit(".", 1)[1],
        "method": str(cfg.method._target_).rsplit(".", 1)[1],
        # The tiny model stands in this machine's store, which tells a reader nothing.
        "base": exported.base if of_hub else "a model of this machine" if exported.adapted else "weights of its own",
        "exported": exported,
        "cfg": cfg,
        "manifest": manifest,
        "table": "\n".join("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *rows]),
        "protocol": PROTOCOL,
        "groups": groups(items),
        "messages": messages,
        "prompt_name": type(prompt).__name__,
        "filtered": sum(int(value) for name, value in metrics.items() if name.endswith("_schema_filtered")),
    }
    return render_card("tutelage.text2sql.export", "card.md.jinja", header=header, values=values)


def _column(table: str, name: str, kind: str, *values: str) -> Column:
    return Column(name=name, type=kind, table=table, nullable=True, frequent=values)


# A database that any reader understands at once, to show the prompt with.
SHOP = Catalog(
    db_id="shops",
    database="shops.sqlite",
    dialect="sqlite",
    tables=(
        Table(
            name="shop",
            columns=(
                _column("shop", "id", "INTEGER"),
                _column("shop", "name", "TEXT", "Ada"),
                _column("shop", "city", "TEXT", "Bonn", "Graz"),
            ),
            primary_key=("id",),
            foreign_keys=(),
            num_rows=3,
            is_view=False,
        ),
        Table(
            name="sale",
            columns=(_column("sale", "shop_id", "INTEGER"), _column("sale", "amount", "REAL")),
            primary_key=(),
            foreign_keys=(ForeignKey("sale", ("shop_id",), "shop", ("id",)),),
            num_rows=4,
            is_view=False,
        ),
    ),
)
EXAMPLE = Example("card", "shops", "How much did the shops of Bonn sell?", None)

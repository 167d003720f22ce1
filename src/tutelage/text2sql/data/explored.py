"""Explored pairs as examples, and a cut of questions into training and held-out ones that share no query template."""

import re
from collections.abc import Iterable
from typing import Literal

from tutelage.core.randomness import generator
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.explore.pair import Pair

Part = Literal["train", "val", "held_out"]

# Numbers and quoted text; '' inside a literal is a quote.
_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")


def example_of(pair: Pair) -> Example:
    """Turn an explored pair into an example, in the dialect of its database."""
    return Example(
        id=f"{pair.db_id}/{pair.id}",
        db_id=pair.db_id,
        question=pair.question,
        sql=pair.native_sql or pair.sql,
        evidence=pair.evidence,
        level=pair.level,
        source="explored",
        solved=pair.solved,
    )


def template(sql: str) -> str:
    """A query without its literals, case and spacing: what two pairs share that differ in values only.

    >>> template("SELECT  name FROM t WHERE a = 'x' LIMIT 3") == template("select name from t where a = 'y' limit 5")
    True
    """
    return " ".join(_LITERAL.sub("?", sql).lower().split())


def split_by_template(
    examples: Iterable[Example], *, val: float, held_out: float, seed: int
) -> dict[Part, list[Example]]:
    """Cut examples so that no template of a held-out query was trained on.

    Examples of one template, or of one question up to its literals, go to one part: otherwise a model could answer a
    held-out question by changing a value in a query that it has seen.

    Args:
        examples: Of any number of databases; a template belongs to its database.
        val: The share of templates to pick a checkpoint by.
        held_out: The share of templates to score on.
        seed: Of the cut, which is a function of it and of each group's templates.
    """
    examples = list(examples)
    group_of = [(example.db_id, group) for example, group in zip(examples, _groups(examples), strict=True)]
    draws = {group: generator(seed, "explored", *group).random() for group in group_of}
    part_of: dict[tuple[str, str], Part] = {
        group: "held_out" if draw < held_out else "val" if draw < held_out + val else "train"
        for group, draw in draws.items()
    }
    # Of few templates chance may leave a part without any; it then gets the one that came closest.
    shares: tuple[tuple[Part, float], ...] = (("held_out", held_out), ("val", val))
    for part, share in shares:
        left = sorted((draws[group], group) for group, found in part_of.items() if found == "train")
        if share > 0 and part not in part_of.values() and len(left) > 1:
            part_of[left[0][1]] = part
    parts: dict[Part, list[Example]] = {"train": [], "val": [], "held_out": []}
    for example, group in zip(examples, group_of, strict=True):
        parts[part_of[group]].append(example)
    return parts


def _groups(examples: list[Example]) -> list[str]:
    """Name each example's group by the smallest template in it (union-find over templates and questions)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    keys = []
    for example in examples:
        assert example.sql is not None, "explored pairs come with SQL"
        query = f"0{example.db_id}\x1f{template(example.sql)}"
        question = f"1{example.db_id}\x1f{template(example.question)}"
        low, high = sorted((root(query), root(question)))
        parent[high] = low  # the root is the group's smallest key, whatever the order of the examples
        keys.append(query)
    return [root(key) for key in keys]

"""Which samples share a row, and which share a prefix: planned once, before the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.core.randomness import generator
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.prompts import View
from tutelage.text2sql.training.packing import Sample, Tree, first_fit, grow, interleaved, plan_trees

# Token ids of examples of one database, all with the same view of its schema; None for the whole schema.
Encode = Callable[[Sequence[Example], View | None], list[Sample]]
Prefix = Literal["shared", "none"]

LEAST_DATABASES = 4  # of a step, where the data have them: gradients of one database alone would pull one way (ours)
SLACK = 64  # tokens by which a view of a schema may be longer than the whole, since shuffling changes a few


@dataclass(frozen=True, slots=True)
class Group:
    """Examples of one database that are trained on as one tree, or one example by itself.

    Attributes:
        examples: Whose prompts are written with one view of the schema.
        length: Tokens that are computed, of whole schemas.
    """

    examples: tuple[Example, ...]
    length: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of a run.

    Attributes:
        rows: The groups of each row.
        stages: The rows of each stage of the curriculum.
        answers: Answer tokens of each row.
        overlong: Samples that fit no row, with their length.
        sharing: What sharing saves, by name.
    """

    rows: list[tuple[Group, ...]]
    stages: list[list[int]]
    answers: list[int]
    overlong: dict[str, int]
    sharing: dict[str, int]

    @property
    def databases(self) -> list[frozenset[str]]:
        """Of each row."""
        return [frozenset(group.examples[0].db_id for group in row) for row in self.rows]


def plan_rows(
    stages: Sequence[Sequence[Example]],
    *,
    encode: Encode,
    max_length: int,
    packing: bool,
    prefix: Prefix,
    branches: int,
    seed: int,
) -> Plan:
    """Plan rows on whole schemas. A view that leaves tables out is shorter.

    Args:
        stages: The examples of each stage of the curriculum.
        encode: Writes them as tokens.
        max_length: Tokens of a row.
        packing: Whether a row holds several samples.
        prefix: Whether samples share what their prompts begin with. Without packing they do not.
        branches: The most samples that share a prefix.
        seed: Of who shares with whom.
    """
    plan = Plan([], [], [], {}, dict.fromkeys(SHARING, 0))
    for number, examples in enumerate(stages):
        samples = [encode([example], None)[0] for example in examples]
        by_database: dict[str, list[int]] = {}
        for index, (example, sample) in enumerate(zip(examples, samples, strict=True)):
            if sample.length > max_length:
                plan.overlong[example.id] = sample.length
            else:
                by_database.setdefault(example.db_id, []).append(index)
        groups: list[list[int]] = []
        lengths: list[int] = []
        for db_id, indices in by_database.items():
            found = [[index] for index in range(len(indices))]
            of_database = [samples[index] for index in indices]
            if packing and prefix == "shared":
                rng = generator(seed, "trees", number, db_id)
                found, too_long = plan_trees(of_database, branches=branches, capacity=max_length, rng=rng)
                plan.sharing["prefix_too_long"] += too_long
            for members in found:
                trees = grow([of_database[index] for index in members])
                groups.append([indices[index] for index in members])
                lengths.append(sum(tree.length for tree in trees))
                plan.sharing["samples"] += len(members)
                plan.sharing["trees"] += len(members) > 1
                plan.sharing["samples_in_trees"] += len(members) if len(members) > 1 else 0
                plan.sharing["tokens_seen"] += sum(tree.seen for tree in trees)
                plan.sharing["tokens_computed"] += lengths[-1]
        if packing:
            order = interleaved(lengths, [examples[group[0]].db_id for group in groups])
            filled = first_fit(lengths, capacity=max_length, order=order)
        else:
            filled = [[index] for index in range(len(groups))]
        plan.stages.append(list(range(len(plan.rows), len(plan.rows) + len(filled))))
        for row in filled:
            plan.rows.append(tuple(Group(tuple(examples[i] for i in groups[g]), lengths[g]) for g in row))
            plan.answers.append(sum(len(samples[i].answer_ids) for g in row for i in groups[g]))
    return plan


SHARING = ("samples", "samples_in_trees", "trees", "prefix_too_long", "tokens_seen", "tokens_computed")


def write_group(group: Group, *, encode: Encode, seed: int, epoch: int) -> list[Tree]:
    """Write a group for an epoch.

    Where the epoch's view of the schema would need more room than was planned (some of its prompts lost columns, so
    they share less), the whole schema is taken instead.
    """
    samples = encode(group.examples, View(seed, epoch, group.examples[0].id))
    if len(samples) == 1:
        return [Tree((), (samples[0],))]
    trees = grow(samples)
    if sum(tree.length for tree in trees) > group.length + SLACK:
        trees = grow(encode(group.examples, None))
    return trees


def mix_databases(order: Sequence[int], databases: Sequence[frozenset[str]], *, step: int) -> list[int]:
    """Change an order of rows as little as gives each step rows of at least LEAST_DATABASES databases.

    Where too few databases are left, a step has those that are left.

    Args:
        order: The rows.
        databases: Of each row, by its number.
        step: Rows of a step.
    """
    total = len(frozenset[str]().union(*databases)) if databases else 0
    if total < 2:
        return list(order)
    waiting, mixed = list(order), list[int]()
    while waiting:
        seen: set[str] = set()
        for _ in range(min(step, len(waiting))):
            pick = 0
            if seen and len(seen) < min(LEAST_DATABASES, total):
                pick = next((place for place, row in enumerate(waiting) if not databases[row] <= seen), 0)
            row = waiting.pop(pick)
            seen |= databases[row]
            mixed.append(row)
    return mixed

"""Rows of a step: every sample once, shared out, weighed by the tokens of the whole step."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tutelage.core.batches import PADDING, Key
from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.prompts import View
from tutelage.text2sql.training.datamodule import Loading, RowBatches, Text2SqlDataModule
from tutelage.text2sql.training.packing import IGNORED, Sample, grow, plan_trees
from tutelage.text2sql.training.plan import Encode, mix_databases, plan_rows


def examples(count: int) -> list[Example]:
    return [Example(str(i), "db", f"question {i}", "SELECT 1") for i in range(count)]


def encode(examples: Sequence[Example], view: View | None) -> list[Sample]:
    """Sample i has 3 + i % 5 prompt tokens and 1 + i % 3 answer tokens, all of them i + 1."""
    numbers = [int(example.id) for example in examples]
    return [Sample([i + 1] * (3 + i % 5), [i + 1] * (1 + i % 3)) for i in numbers]


def datamodule(
    folder: Path, *, stages: list[list[Example]] | None = None, loading: Loading | None = None, coder: Encode = encode
) -> Text2SqlDataModule:
    return Text2SqlDataModule(
        train=stages or [examples(40)],
        val=examples(30),
        encode=coder,
        loading=loading or Loading(max_length=20, batch_size=2, val_size=8),
        val_batch_size=4,
        seed=1,
        folder=folder,
    )


def test_an_epoch_holds_every_sample_once(tmp_path: Path) -> None:
    loader = datamodule(tmp_path, loading=Loading(max_length=20, batch_size=1, val_size=8)).train_dataloader()
    for _ in range(2):
        seen = [token for batch in loader for token in set(batch.input_ids_BT[0].tolist())]
        assert sorted(seen) == list(range(1, 41))
    assert (loader.epoch, loader.batch) == (2, 0)


def test_unpacked_rows_hold_one_sample(tmp_path: Path) -> None:
    loading = Loading(max_length=20, batch_size=4, packing=False, val_size=8)
    batches = list(datamodule(tmp_path, loading=loading).train_dataloader())
    assert len(batches) == 10
    assert all(batch.input_ids_BT.shape[0] == 4 and batch.trees == () for batch in batches)


def plans(
    stages: list[range], *, step_rows: int, micro_rows: int, world_size: int = 1, answers: list[int] | None = None
) -> list[RowBatches]:
    return [
        RowBatches(
            stages,
            answers=answers or [1] * sum(map(len, stages)),
            databases=[frozenset({"db"})] * sum(map(len, stages)),
            step_rows=step_rows,
            micro_rows=micro_rows,
            seed=1,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("micro_rows", [1, 2, 12])
def test_answers_in_step_counts_over_ranks_and_passes(world_size: int, micro_rows: int) -> None:
    answers = np.random.default_rng(0).integers(1, 100, size=50).tolist()
    ranks = plans([range(50)], step_rows=12, micro_rows=micro_rows, world_size=world_size, answers=answers)
    for epoch in (0, 1):
        of_ranks = [batches.epoch(epoch) for batches in ranks]
        assert {len(passes) for passes in of_ranks} == {len(ranks[0])}  # ranks wait for each other
        for start in range(0, len(ranks[0]), ranks[0].passes):
            rows = [row for passes in of_ranks for one in passes[start : start + ranks[0].passes] for row, *_ in one]
            rows = [row for row in rows if row != PADDING]
            expected = sum(answers[row] for row in rows)
            assert {ranks[0].answers_in_step(epoch, row) for row in rows} == {expected}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("micro_rows", [1, 3, 8])
@pytest.mark.parametrize("sizes", [[15], [10, 5], [10, 5, 1], [3]])
def test_every_row_is_in_every_epoch_once(world_size: int, micro_rows: int, sizes: list[int]) -> None:
    """Of 10 + 5 rows at batch 8 the whole second stage was left out, in every epoch."""
    ends = np.cumsum(sizes).tolist()
    stages = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    ranks = plans(stages, step_rows=8, micro_rows=micro_rows, world_size=world_size)
    for epoch in range(3):
        rows = [row for batches in ranks for one in batches.epoch(epoch) for row, *_ in one if row != PADDING]
        assert sorted(rows) == list(range(sum(sizes)))
        steps = np.concatenate(ranks[0].steps(epoch)).tolist()
        assert [sorted(steps[stage.start : stage.stop]) for stage in stages] == [list(stage) for stage in stages]


def test_a_pass_holds_no_more_rows_than_its_budget(tmp_path: Path) -> None:
    # Rows of 20 tokens; a step of 4 rows, two in a pass of at most 50 tokens.
    loading = Loading(max_length=20, batch_size=4, micro_batch_tokens=50, val_size=8)
    loader = datamodule(tmp_path, loading=loading).train_dataloader()
    batches = list(loader)
    assert max(batch.num_tokens for batch in batches) <= 40
    assert {len(rows) for rows in loader.batches.epoch(0)[:-1]} == {2}
    assert len(loader) == len(batches)
    with pytest.raises(ConfigError, match=r"data\.micro_batch_tokens: 19 tokens do not hold a row"):
        Loading(max_length=20, batch_size=4, micro_batch_tokens=19, val_size=8)


def test_a_filler_carries_no_loss(tmp_path: Path) -> None:
    module = datamodule(tmp_path)
    rows = module.train_dataloader().dataset
    batch = module.collate([rows[Key(PADDING, 0)]])
    assert (batch.num_tokens, batch.answers_in_step) == (1, 1)
    assert batch.target_BT.tolist() == [[IGNORED]]


def test_epochs_differ_and_repeat() -> None:
    (batches,) = plans([range(50)], step_rows=5, micro_rows=5)
    assert batches.epoch(0) != batches.epoch(1)
    assert batches.epoch(1) == batches.epoch(1)


def test_curriculum_keeps_its_stages_in_order(tmp_path: Path) -> None:
    easy, hard = examples(40)[:20], examples(40)[20:]
    loader = datamodule(tmp_path, stages=[easy, hard]).train_dataloader()
    order = [max(batch.input_ids_BT[0].tolist()) > 20 for batch in loader]
    assert order == sorted(order)
    assert order[0] is False
    assert order[-1] is True


def test_overlong_samples_are_reported_and_never_cut(tmp_path: Path) -> None:
    loading = Loading(max_length=8, batch_size=1, val_size=8)
    module = datamodule(tmp_path, loading=loading)
    too_long = {str(i): 4 + i % 5 + i % 3 for i in range(40) if 4 + i % 5 + i % 3 > 8}
    with pytest.warns(UserWarning, match=f"{len(too_long)} of 40 training samples are longer"):
        loader = module.train_dataloader()
    assert json.loads((tmp_path / "overlong.json").read_text()) == too_long
    for batch in loader:
        assert sum(map(sum, batch.trees)) == batch.num_tokens <= 8
        for i in set(batch.input_ids_BT[0].tolist()):
            target = batch.target_BT[batch.input_ids_BT == i]
            assert (target != IGNORED).sum() == 1 + (i - 1) % 3  # all of its answer


def test_fewer_rows_than_a_batch_make_one_step(tmp_path: Path) -> None:
    loading = Loading(max_length=20, batch_size=40, packing=False, val_size=8)
    with pytest.warns(UserWarning, match=r"fill 10 rows of 20 tokens.*an epoch is one step"):
        loader = datamodule(tmp_path, stages=[examples(10)], loading=loading).train_dataloader()
    (batch,) = loader
    assert len(batch.input_ids_BT) == 10


def test_nothing_fits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 40 training samples fits 3 tokens.*at least 4"):
        datamodule(tmp_path, loading=Loading(max_length=3, batch_size=1, val_size=1)).train_dataloader()


def test_view_is_a_function_of_seed_and_epoch(tmp_path: Path) -> None:
    views: list[View | None] = []

    def recording(examples: Sequence[Example], view: View | None) -> list[Sample]:
        views.append(view)
        return encode(examples, view)

    loader = datamodule(tmp_path, coder=recording).train_dataloader()
    assert set(views) == {None}  # planned on whole prompts
    views.clear()
    list(loader)
    list(loader)
    assert {view.epoch for view in views if view} == {0, 1}
    assert set(views) <= {View(1, epoch, str(i)) for epoch in (0, 1) for i in range(40)}


def test_validation_questions_are_the_same_ones_each_time(tmp_path: Path) -> None:
    one, two = datamodule(tmp_path), datamodule(tmp_path)
    assert [e.id for e in one.val] == [e.id for e in two.val]
    assert len(one.val) == 8
    batches = list(one.val_dataloader())
    assert [index for batch in batches for index in batch.indices] == list(range(8))
    # Each with its gold answer, which carries loss unless it is too long.
    golds = [gold for batch in batches for gold in batch.golds]
    expected = [sample for example in one.val for sample in encode([example], None)]
    assert [gold.input_ids_BT[0].tolist() for gold in golds] == [[*s.prompt_ids, *s.answer_ids] for s in expected]
    short = datamodule(tmp_path, loading=Loading(max_length=6, batch_size=1, val_size=8))
    carrying = [int((gold.target_BT != IGNORED).sum()) for batch in short.val_dataloader() for gold in batch.golds]
    assert carrying == [len(s.answer_ids) if s.length <= 6 else 0 for s in expected]


HEADS = {name: [n * 100 + k for k in range(size)] for n, (name, size) in enumerate(zip("abcde", (90, 80, 70, 100, 30)))}


def encode_schemas(examples: Sequence[Example], view: View | None) -> list[Sample]:
    """A database's own head, which a view makes three tokens shorter, and a question of five tokens."""
    numbers = [int(example.id) for example in examples]
    heads = [HEADS[example.db_id][: -3 if view else None] for example in examples]
    return [Sample([*head, *[1000 + i] * 5], [i + 1] * 4) for head, i in zip(heads, numbers, strict=True)]


def of_databases(counts: dict[str, int]) -> list[Example]:
    names = [name for name, count in counts.items() for _ in range(count)]
    return [Example(str(i), name, "", "SELECT 1") for i, name in enumerate(names)]


def test_samples_of_a_database_share_its_schema(tmp_path: Path) -> None:
    loading = Loading(max_length=400, batch_size=2, val_size=1, branches=4)
    trained = of_databases({"a": 9, "b": 6, "c": 5, "d": 4, "e": 6})
    module = datamodule(tmp_path, stages=[trained], loading=loading, coder=encode_schemas)
    module.val = module.val[:0]
    loader = module.train_dataloader()
    # a: 3 trees of 3; b: 2 of 3; c: 3 and 2; d: 1 of 4; the 30 tokens of e are too few to share
    computed = 3 * 90 + 2 * 80 + 2 * 70 + 100 + 24 * 9 + 6 * 39
    seen = 9 * 99 + 6 * 89 + 5 * 79 + 4 * 109 + 6 * 39
    assert module.sharing == {
        "samples": 30,
        "samples_in_trees": 24,
        "trees": 8,
        "prefix_too_long": 0,
        "tokens_seen": seen,
        "tokens_computed": computed,
    }
    assert json.loads((tmp_path / "sharing.json").read_text()) == module.sharing
    for _ in range(2):
        batches = list(loader)
        # Each branch keeps the last token of its prompt and all of its answer.
        answers = [t for batch in batches for t in batch.target_BT.flatten().tolist() if t != IGNORED]
        assert sorted(answers) == sorted([i + 1 for i in range(30)] * 4)
        assert sum(batch.num_seen for batch in batches) == seen - 3 * 30
        assert sum(batch.num_tokens for batch in batches) == computed - 3 * (8 + 6)
    alone = Loading(max_length=400, batch_size=2, val_size=1, prefix="none")
    unshared = datamodule(tmp_path, stages=[trained], loading=alone, coder=encode_schemas)
    assert all(tree[0] == 0 for batch in unshared.train_dataloader() for tree in batch.trees)
    assert unshared.sharing["tokens_computed"] == unshared.sharing["tokens_seen"] == seen


def test_a_group_sees_one_view_and_the_whole_schema_where_its_view_does_not_fit(tmp_path: Path) -> None:
    views: list[tuple[tuple[str, ...], View | None]] = []

    def recording(examples: Sequence[Example], view: View | None) -> list[Sample]:
        views.append((tuple(example.id for example in examples), view))
        samples = encode_schemas(examples, view)
        if view and view.epoch == 1:  # a view whose prompts have nothing in common
            samples = [Sample([int(e.id), *s.prompt_ids], s.answer_ids) for e, s in zip(examples, samples, strict=True)]
        return samples

    loading = Loading(max_length=400, batch_size=1, val_size=1)
    stages = [of_databases({"a": 6})]
    loader = datamodule(tmp_path, stages=stages, loading=loading, coder=recording).train_dataloader()
    views.clear()
    (first,), (second,) = list(loader), list(loader)
    members, view = views[0]
    assert view == View(1, 0, members[0])
    assert [(view, sorted(ids)) for ids, view in views[1:]] == [
        (View(1, 1, members[0]), [str(i) for i in range(6)]),
        (None, [str(i) for i in range(6)]),
    ]
    assert (first.trees, second.trees) == (((87, *[9] * 6),), ((90, *[9] * 6),))


def test_steps_have_four_databases_where_the_data_have_them() -> None:
    names = "a" * 30 + "b" * 6 + "c" * 5 + "d" * 5
    databases = [frozenset(name) for name in names]
    order = np.random.default_rng(0).permutation(46).tolist()
    mixed = mix_databases(order, databases, step=8)
    assert sorted(mixed) == sorted(order)
    for start in range(0, 46, 8):
        left = len({names[row] for row in mixed[start:]})
        assert len({names[row] for row in mixed[start : start + 8]}) == min(4, left)
    assert mix_databases(order, [frozenset("a")] * 46, step=8) == order  # nothing to mix
    # A row of one step holds trees of several databases, though those of one are alike in size.
    plan = plan_rows(
        [of_databases(dict.fromkeys("abcd", 12))],
        encode=encode_schemas,
        max_length=484,
        packing=True,
        prefix="shared",
        branches=4,
        seed=0,
    )
    assert [len(found) for found in plan.databases] == [4, 4, 4]


def test_a_prefix_that_leaves_no_room_is_counted(tmp_path: Path) -> None:
    loading = Loading(max_length=105, batch_size=1, val_size=1)
    module = datamodule(tmp_path, stages=[of_databases({"a": 3})], loading=loading, coder=encode_schemas)
    with pytest.warns(UserWarning, match="3 training samples share no prefix"):
        module.train_dataloader()
    assert (module.sharing["prefix_too_long"], module.sharing["trees"]) == (3, 0)


def test_groups_are_found_by_token_ids() -> None:
    def plan(*prompts: list[int], branches: int = 16, capacity: int = 1000) -> list[list[int]]:
        samples = [Sample(prompt, [1, 2]) for prompt in prompts]
        trees, _ = plan_trees(samples, branches=branches, capacity=capacity, rng=np.random.default_rng(0))
        return sorted(sorted(tree) for tree in trees)

    long, short = list(range(300)), list(range(100))
    # Two that share 300 tokens would save less with a third that shares 100.
    assert plan([*long, 1], [*short, 999, 7], [*long, 2]) == [[0, 2], [1]]
    assert plan([*long, 1], [*long[:280], 7, 7], [*long, 2]) == [[0, 1, 2]]
    assert plan([*range(63), 1], [*range(63), 2]) == [[0], [1]]
    # Equal prompts share all but the last token, which predicts the answer.
    assert plan(long, long) == [[0, 1]]
    (tree,) = grow([Sample(long, [1]), Sample(long, [2])])
    assert (len(tree.prefix_ids), tree.branches) == (299, (Sample([299], [1]), Sample([299], [2])))
    # Five of at most two branches; and a tree that fills its room to the last token.
    assert sorted(map(len, plan(*[[*short, k] for k in range(5)], branches=2))) == [1, 2, 2]
    assert sorted(map(len, plan(*[[*short, k] for k in range(4)], capacity=109))) == [1, 3]


def test_bad_values() -> None:
    with pytest.raises(ConfigError, match=r"data\.prefix: 'all'"):
        Loading(max_length=1, batch_size=1, val_size=1, prefix="all")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"data\.branches: 0 is not positive"):
        Loading(max_length=1, batch_size=1, val_size=1, branches=0)
    with pytest.raises(ConfigError, match=r"data\.max_length: 0 is not positive"):
        Loading(max_length=0, batch_size=1, val_size=1)

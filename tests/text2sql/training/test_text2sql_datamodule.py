"""Rows of a step: every sample once, shared out, weighed by the tokens of the whole step."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.prompts import View
from tutelage.text2sql.training.datamodule import Encode, Loading, RowBatches, Text2SqlDataModule
from tutelage.text2sql.training.packing import IGNORED, Sample


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
    assert all(batch.input_ids_BT.shape[0] == 4 and batch.lengths_S == () for batch in batches)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_answers_in_step_counts_over_ranks_and_accumulated_batches(world_size: int, accumulate: int) -> None:
    answers = np.random.default_rng(0).integers(1, 100, size=50).tolist()
    ranks = [
        RowBatches(
            [range(50)],
            answers=answers,
            batch_size=4,
            accumulate=accumulate,
            seed=1,
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    for epoch in (0, 1):
        epochs = [batches.epoch(epoch) for batches in ranks]
        for start in range(0, len(ranks[0]), accumulate):
            rows = [row for of_rank in epochs for batch in of_rank[start : start + accumulate] for row in batch]
            expected = sum(answers[row] for row in rows)
            assert {ranks[0].answers_in_step(epoch, row) for row in rows} == {expected}


def test_epochs_differ_and_repeat() -> None:
    batches = RowBatches([range(50)], answers=[1] * 50, batch_size=5, accumulate=1, seed=1, rank=0, world_size=1)
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
        assert sum(batch.lengths_S) == batch.num_tokens <= 8
        for i in set(batch.input_ids_BT[0].tolist()):
            target = batch.target_BT[batch.input_ids_BT == i]
            assert (target != IGNORED).sum() == 1 + (i - 1) % 3  # all of its answer


def test_fewer_rows_than_a_batch_make_one_step(tmp_path: Path) -> None:
    loading = Loading(max_length=20, batch_size=40, packing=False, val_size=8)
    with pytest.warns(UserWarning, match=r"fill 10 rows of 20 tokens.*a step takes 10"):
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
    assert [index for batch in one.val_dataloader() for index in batch] == list(range(8))


def test_bad_values() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_length: 0 is not positive"):
        Loading(max_length=0, batch_size=1, val_size=1)

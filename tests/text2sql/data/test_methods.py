"""Mixtures of seeds and explored pairs, by hand."""

from dataclasses import replace

import pytest

from tutelage.core.errors import ConfigError
from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.data.methods import DbExplore, Sft, thin


def seeds(count: int) -> list[Example]:
    return [Example(f"s{i}", "db", f"q{i}", "SELECT 1") for i in range(count)]


def pairs(count: int) -> list[Example]:
    """Levels 1, 2, 3, 1, 2, 3, …"""
    return [Example(f"p{i}", "db", f"e{i}", "SELECT 1", level=1 + i % 3, source="explored") for i in range(count)]


def test_sft_takes_seeds_alone() -> None:
    assert Sft().stages(seeds(5), pairs(9), seed=1) == [seeds(5)]
    with pytest.raises(ConfigError, match="method=db_explore"):
        Sft().stages([], pairs(9), seed=1)


@pytest.mark.parametrize(
    ("share", "of_seeds", "of_pairs"),
    [(None, 10, 90), (0.5, 10, 10), (0.1, 10, 90), (0.05, 5, 90), (0.0, 0, 90), (1.0, 10, 0)],
)
def test_shares(share: float | None, of_seeds: int, of_pairs: int) -> None:
    (stage,) = DbExplore(seed_share=share).stages(seeds(10), pairs(90), seed=1)
    assert sum(e.source == "seed" for e in stage) == of_seeds
    assert sum(e.source == "explored" for e in stage) == of_pairs
    assert len({e.id for e in stage}) == len(stage)  # nothing twice


@pytest.mark.parametrize(
    ("most", "share", "chosen"),
    [
        # Four that the model misses, six that it has right: what it has right least often comes first.
        (4, 0.0, "0 1 2 3"),
        (4, 0.5, "0 1 + 2 easy"),
        (8, 0.25, "0 1 2 3 + 4 easy"),  # too few that it misses: easy ones fill up
        (None, 0.5, "0 1 2 3 + 4 easy"),
        (None, 0.0, "0 1 2 3"),
        (2, None, "any 2"),
    ],
)
def test_what_a_model_misses_comes_first(most: int | None, share: float | None, chosen: str) -> None:
    solved = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    known = [replace(pair, solved=right) for pair, right in zip(pairs(10), solved, strict=True)]
    (stage,) = DbExplore(max_pairs=most, easy_share=share).stages([], known, seed=1)
    missed = [int(pair.id[1:]) for pair in stage if pair.solved != 1.0]
    if chosen != "any 2":
        hard, _, easy = chosen.partition(" + ")
        assert missed == [int(number) for number in hard.split()]
        assert len(stage) - len(missed) == int(easy.split()[0] if easy else 0)
    assert len(stage) == (most or len(stage)) and stage == sorted(stage, key=lambda pair: pair.id)


def test_pairs_that_no_model_answered_are_drawn_evenly() -> None:
    even = DbExplore(max_pairs=5).stages([], pairs(20), seed=1)
    assert DbExplore(max_pairs=5, easy_share=0.5).stages([], pairs(20), seed=1) == even
    with pytest.raises(ConfigError, match="easy_share"):
        DbExplore(easy_share=1.0)


def test_curriculum_goes_level_by_level_and_spreads_seeds() -> None:
    stages = DbExplore(curriculum=True).stages(seeds(6), pairs(9), seed=1)
    assert [sorted({e.level for e in stage}) for stage in stages] == [[0, 1], [0, 2], [0, 3]]
    assert [sum(e.source == "seed" for e in stage) for stage in stages] == [2, 2, 2]
    assert sorted(e.id for stage in stages for e in stage) == sorted(e.id for e in seeds(6) + pairs(9))


def test_levels_and_numbers_are_limited() -> None:
    (stage,) = DbExplore(max_level=2, max_pairs=4, max_seeds=3).stages(seeds(6), pairs(30), seed=1)
    assert {e.level for e in stage} <= {0, 1, 2}
    assert len(stage) == 7


def test_thinning_is_a_function_of_the_seed_and_keeps_the_order() -> None:
    one, again, other = (thin(seeds(100), 10, "x", seed=s) for s in (1, 1, 2))
    assert one == again != other
    assert [int(e.id[1:]) for e in one] == sorted(int(e.id[1:]) for e in one)


def test_what_cannot_be_mixed() -> None:
    with pytest.raises(ConfigError, match=r"method\.seed_share: 0\.5 of the seed questions, and there are none"):
        DbExplore(seed_share=0.5).stages([], pairs(3), seed=1)
    with pytest.raises(ConfigError, match="neither seeds nor explored pairs"):
        DbExplore().stages([], [], seed=1)
    with pytest.raises(ConfigError, match=r"method\.seed_share"):
        DbExplore(seed_share=1.5)
    with pytest.raises(ConfigError, match=r"method\.held_out"):
        DbExplore(held_out=0.7)

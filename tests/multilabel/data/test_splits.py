import numpy as np
import pytest

from tutelage.multilabel.data.splits import hold_out


def targets(seed: int, *, samples: int = 400) -> np.ndarray:
    """Labels from common to rare, some samples without any, some targets ignored."""
    random = np.random.default_rng(seed)
    drawn = (random.random((samples, 8)) < np.geomspace(0.6, 0.02, 8)).astype(np.int8)
    drawn[random.random(drawn.shape) < 0.02] = -1
    return drawn


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_every_label_is_split_as_the_whole_is(seed: int, fraction: float) -> None:
    targets_NK = targets(seed)
    kept, held = hold_out(targets_NK, fraction=fraction, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(400))
    assert abs(len(held) - 400 * fraction) <= 2
    whole_K = (targets_NK == 1).sum(axis=0)
    held_K = (targets_NK[held] == 1).sum(axis=0)
    np.testing.assert_allclose(held_K, whole_K * fraction, atol=2)
    assert (held_K[whole_K >= 10] > 0).all()


def test_a_random_split_is_worse() -> None:
    """The rarest labels are what stratification is for."""
    targets_NK = targets(0)
    rare = np.argsort((targets_NK == 1).sum(axis=0))[:3]
    wanted = (targets_NK[:, rare] == 1).sum(axis=0) * 0.25

    def error(held: np.ndarray) -> float:
        return float(np.abs((targets_NK[held][:, rare] == 1).sum(axis=0) - wanted).mean())

    drawn = [np.random.default_rng(i).permutation(400)[:100] for i in range(20)]
    stratified = [hold_out(targets_NK, fraction=0.25, seed=i)[1] for i in range(5)]
    assert np.mean([error(h) for h in stratified]) < 0.5 < np.mean([error(h) for h in drawn])


def test_seed_decides() -> None:
    targets_NK = targets(0)
    first, second = hold_out(targets_NK, fraction=0.2, seed=0)[1], hold_out(targets_NK, fraction=0.2, seed=0)[1]
    assert np.array_equal(first, second)
    assert not np.array_equal(first, hold_out(targets_NK, fraction=0.2, seed=1)[1])


def test_hand_worked_case() -> None:
    """Of two rare and four common samples, half of each kind is held out."""
    targets_NK = np.array([[1, 0]] * 2 + [[0, 1]] * 4, dtype=np.int8)
    _, held = hold_out(targets_NK, fraction=0.5, seed=3)
    assert targets_NK[held].sum(axis=0).tolist() == [1, 2]


def test_no_label_at_all() -> None:
    kept, held = hold_out(np.zeros((10, 3), dtype=np.int8), fraction=0.3, seed=0)
    assert (len(kept), len(held)) == (7, 3)

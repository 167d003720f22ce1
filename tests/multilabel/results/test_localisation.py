import numpy as np
import pytest
import torch

from tutelage.multilabel.data.source import Boxes
from tutelage.multilabel.results.localisation import GRID, Localisation, locate


def boxes(*entries: tuple[int, float, float, float, float]) -> Boxes:
    return Boxes(
        labels_N=np.array([e[0] for e in entries]), xyxy_N4=np.array([e[1:] for e in entries], dtype=np.float32)
    )


def fine(*, rows: slice, columns: slice) -> torch.Tensor:
    """A map on the grid itself, so that nothing is interpolated: 1 where named, −1 elsewhere."""
    cam = torch.full((GRID, GRID), -1.0)
    cam[rows, columns] = 1.0
    return cam


HALF, QUARTER = GRID // 2, GRID // 4
LEFT = fine(rows=slice(None), columns=slice(0, HALF))


def test_mass_and_area_by_hand() -> None:
    cams = torch.stack([LEFT, -LEFT])[None]
    found = locate(cams, [boxes((0, 0, 0, 0.25, 1), (1, 0, 0, 0.5, 0.5))])
    assert found.label_P.tolist() == [0, 1]
    # Label 0 has half of its mass in the left quarter; label 1 has all of it on the right, away from its box.
    assert found.mass_P.tolist() == [0.5, 0.0]
    assert found.hit_P.tolist() == [0.5, 0.0]  # all maxima are equal: the share of them that is inside
    assert found.area_P.tolist() == [0.25, 0.25]


def test_boxes_of_one_label_are_one_region() -> None:
    found = locate(LEFT[None, None], [boxes((0, 0, 0, 0.5, 0.75), (0, 0, 0.25, 0.5, 1))])
    assert found.mass_P.tolist() == [1.0]
    assert found.area_P.tolist() == [0.5]


def test_maximum_of_a_coarse_map() -> None:
    """A 4×4 map, upsampled: its peak stays in the middle of its cell."""
    cam = torch.zeros(1, 1, 4, 4)
    cam[0, 0, 1, 2] = 3.0
    inside, outside = boxes((0, 0.55, 0.3, 0.7, 0.45)), boxes((0, 0.0, 0.0, 0.5, 1.0))
    assert locate(cam, [inside]).hit_P.tolist() == [1.0]
    assert locate(cam, [outside]).hit_P.tolist() == [0.0]
    assert 0 < locate(cam, [outside]).mass_P.item() < 0.2  # what bilinear upsampling carries over


def test_map_that_says_nothing_gets_what_chance_gives() -> None:
    found = locate(torch.ones(1, 1, 7, 7), [boxes((0, 0.25, 0.25, 0.75, 0.75))])
    assert found.hit_P.item() == found.mass_P.item() == pytest.approx(found.area_P.item()) == 0.25
    negative = locate(-torch.ones(1, 1, 7, 7), [boxes((0, 0.25, 0.25, 0.75, 0.75))])
    assert negative.mass_P.item() == 0.0


def test_random_maps_against_a_slow_loop() -> None:
    random = np.random.default_rng(0)
    cams = torch.from_numpy(random.normal(size=(3, 4, GRID, GRID)).astype(np.float32))
    corners = np.sort(random.random((6, 2, 2)), axis=1).reshape(6, 4)
    found_boxes = [boxes(*[(k, *corners[i]) for i, k in enumerate(ks)]) for ks in ([0, 2, 2], [3], [1, 1, 0])]
    found = locate(cams, found_boxes)
    pair = 0
    for b, found_box in enumerate(found_boxes):
        for k in sorted(set(found_box.labels_N.tolist())):
            mass = total = area = 0.0
            best, hit = -np.inf, False
            for row in range(GRID):
                for col in range(GRID):
                    x, y, value = (col + 0.5) / GRID, (row + 0.5) / GRID, float(cams[b, k, row, col])
                    inside = any(
                        label == k and x1 <= x < x2 and y1 <= y < y2
                        for label, (x1, y1, x2, y2) in zip(found_box.labels_N, found_box.xyxy_N4, strict=True)
                    )
                    mass, total, area = mass + max(value, 0) * inside, total + max(value, 0), area + inside
                    best, hit = (value, inside) if value > best else (best, hit)
            assert found.label_P[pair] == k
            assert found.hit_P[pair].item() == hit
            assert found.mass_P[pair].item() == pytest.approx(mass / total, rel=1e-4)
            assert found.area_P[pair].item() == pytest.approx(area / GRID**2, rel=1e-5)
            pair += 1
    assert pair == len(found.label_P)


def test_half_precision_maps() -> None:
    found = locate(LEFT[None, None].bfloat16(), [boxes((0, 0, 0, 0.25, 1))])
    assert found.mass_P.tolist() == [0.5]


def test_mean_over_pairs_of_a_label_then_over_labels() -> None:
    metric = Localisation(num_labels=3)
    cams = torch.stack([LEFT, LEFT, LEFT])[None].expand(4, -1, -1, -1)
    whole, right = (0, 0, 0.5, 1), (0.5, 0, 1, 1)
    given = [boxes((0, *whole)), boxes((0, *right)), boxes((1, *whole)), boxes((1, *right))]
    metric.update(cams, given, torch.tensor([0, 1, 2, -1]))  # the last row is padding
    assert {k: v.item() for k, v in metric.compute().items()} == pytest.approx(
        {"pointing_game": (0.5 + 1) / 2, "cam_mass": (0.5 + 1) / 2, "box_area": 0.5}
    )


def test_no_boxes_no_scores() -> None:
    metric = Localisation(num_labels=2)
    metric.update(torch.ones(2, 2, 3, 3), [None, None], torch.tensor([0, 1]))
    assert metric.compute() == {}

"""Do class activation maps point at the objects? Two scores, where a data set has boxes.

Maps are compared with boxes as fractions of the whole picture, so it must have been resized whole, not cropped.
"""

# B batch, K labels, H W map, G grid, P pairs of a picture and a label that has boxes in it

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from tutelage.multilabel.data.source import Boxes

GRID = 112  # maps are compared on a grid this fine: below 1 % of the picture's side


class Located(NamedTuple):
    """How the map of each (picture, label) pair lies over the label's boxes; all in fractions, 0 to 1."""

    label_P: Tensor
    hit_P: Tensor  # the map's maximum lies in a box (the share of its maxima that do, where several are equal)
    mass_P: Tensor  # share of the map's positive part in the boxes; 0 where it has none
    area_P: Tensor  # share of the picture in the boxes: what a map that says nothing gets for both


def locate(cams_BKHW: Tensor, boxes: Sequence[Boxes | None]) -> Located:
    """Compare maps with boxes.

    The pointing game (Zhang et al., arXiv 1608.00507) without its tolerance of 15 pixels, and the share of CAM mass
    in the box (the energy-based pointing game of Score-CAM, arXiv 1910.01279). Several boxes of a label are one
    region.

    Args:
        cams_BKHW: In any precision; upsampled bilinearly to the grid.
        boxes: For each picture; None where it has none.
    """
    pairs = [(b, int(k)) for b, found in enumerate(boxes) if found is not None for k in sorted(set(found.labels_N))]
    if not pairs:
        none = torch.zeros(0, device=cams_BKHW.device)
        return Located(none.long(), none, none, none)
    picture_P, label_P = torch.tensor(pairs, device=cams_BKHW.device).T
    inside_PGG = torch.stack([_region(boxes[b], k) for b, k in pairs]).to(cams_BKHW.device)
    maps_PGG = F.interpolate(cams_BKHW[picture_P, label_P].float()[:, None], size=(GRID, GRID), mode="bilinear")[:, 0]
    best_PGG = maps_PGG == maps_PGG.amax(dim=(1, 2), keepdim=True)
    positive_PGG = maps_PGG.clamp(min=0)
    total_P = positive_PGG.sum(dim=(1, 2))
    return Located(
        label_P=label_P,
        hit_P=(best_PGG & inside_PGG).sum(dim=(1, 2)) / best_PGG.sum(dim=(1, 2)),
        mass_P=(positive_PGG * inside_PGG).sum(dim=(1, 2)) / total_P.where(total_P > 0, 1.0),
        area_P=inside_PGG.float().mean(dim=(1, 2)),
    )


def _region(boxes: Boxes | None, label: int) -> Tensor:
    """Which grid cells have their centre in a box of the label: bool [G, G]."""
    assert boxes is not None
    centre_G = (torch.arange(GRID) + 0.5) / GRID
    left_N1, top_N1, right_N1, bottom_N1 = torch.from_numpy(boxes.xyxy_N4[boxes.labels_N == label]).T[..., None]
    column_NG = (left_N1 <= centre_G) & (centre_G < right_N1)
    row_NG = (top_N1 <= centre_G) & (centre_G < bottom_N1)
    return torch.any(row_NG[:, :, None] & column_NG[:, None, :], dim=0)


class Localisation(Metric):
    """Means of `locate` over a split: over the pairs of each label, then over labels that have boxes."""

    full_state_update = False
    sums_3K: Tensor
    count_K: Tensor

    def __init__(self, *, num_labels: int) -> None:
        super().__init__()
        self.add_state("sums_3K", default=torch.zeros(3, num_labels, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count_K", default=torch.zeros(num_labels, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, cams_BKHW: Tensor, boxes: Sequence[Boxes | None], index_B: Tensor) -> None:
        """Add a batch; rows of index −1 and rows without boxes count nowhere."""
        counted = [None if index < 0 else found for index, found in zip(index_B.tolist(), boxes, strict=True)]
        located = locate(cams_BKHW, counted)
        for sums_K, value_P in zip(self.sums_3K, located[1:], strict=True):
            sums_K.index_add_(0, located.label_P, value_P.double())
        self.count_K.index_add_(0, located.label_P, torch.ones_like(located.area_P, dtype=torch.float64))

    def compute(self) -> dict[str, Tensor]:
        """Return ``pointing_game``, ``cam_mass`` and ``box_area`` (what chance gives); empty without any box."""
        seen_K = self.count_K > 0
        if not seen_K.any():
            return {}
        mean_3 = (self.sums_3K[:, seen_K] / self.count_K[seen_K]).mean(dim=1)
        return dict(zip(("pointing_game", "cam_mass", "box_area"), mean_3, strict=True))

"""Class attention transfer: pooled class activation maps."""

from tutelage.multilabel.methods.maps.functional import normalised_squared_error, squared_error
from tutelage.multilabel.methods.matching import Matching
from tutelage.multilabel.methods.settings import positive


class CatKd(Matching):
    """mean (pool_r CAM_S − pool_r CAM_T)² over images, labels and places (CAT-KD, CVPR 2023).

    `method=cam_kd` on a coarse grid. The paper divides each map by its norm where the networks are unlike.
    """

    labels = "any"

    def __init__(self, *, grid: int, normalise: bool) -> None:
        """Choose r, and whether maps are divided by their norm over space."""
        divergence = normalised_squared_error if normalise else squared_error
        super().__init__("cat", view="cams_BKHW", divergence=divergence, grid=positive("grid", grid))

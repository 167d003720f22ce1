"""Mean squared error of the logits: the simplest baseline, also L2D's (ICCV 2023)."""

from tutelage.multilabel.methods.maps.functional import squared_error
from tutelage.multilabel.methods.matching import Matching


class Mse(Matching):
    """mean (z_S − z_T)² over images and labels."""

    labels = "multi"

    def __init__(self) -> None:
        super().__init__("mse", view="logits_BK", divergence=squared_error)

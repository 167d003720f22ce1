"""Channel-wise distillation of class activation maps."""

from functools import partial

from tutelage.multilabel.methods.maps.functional import spatial_kl
from tutelage.multilabel.methods.matching import Matching
from tutelage.multilabel.methods.settings import positive


class Cwd(Matching):
    """τ²·KL(softmax_p(CAM_T/τ) ‖ softmax_p(CAM_S/τ)) over space, mean over images and labels (CWD, ICCV 2021).

    Where a label is seen, whatever its strength. The paper (arXiv 2011.13256) has it on a segmenter's score maps and
    on features behind an adaptor; class activation maps are the score maps of a classifier, and need none.
    """

    labels = "any"

    def __init__(self, *, temperature: float) -> None:
        """Choose τ."""
        divergence = partial(spatial_kl, temperature=positive("temperature", temperature))
        super().__init__("cwd", view="cams_BKHW", divergence=divergence)

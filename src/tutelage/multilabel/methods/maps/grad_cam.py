"""Distillation of explanations: Grad-CAMs of the labels that are there."""

from typing import Literal

from torch import Tensor

from tutelage.core.errors import ConfigError
from tutelage.multilabel.methods.maps.functional import cosine_distance, normalised_absolute_error
from tutelage.multilabel.methods.matching import POSITIVES, Divergence, Matching, View
from tutelage.multilabel.methods.method import DataInfo
from tutelage.multilabel.networks.heads import Linear
from tutelage.multilabel.networks.network import Network

DIVERGENCES: dict[str, Divergence] = {"cosine": cosine_distance, "l1": normalised_absolute_error}


class GradCam(Matching):
    """1 − cos(ReLU Grad-CAM_S, ReLU Grad-CAM_T), mean over the present labels (e²KD, ECCV 2024, arXiv 2402.03119).

    e²KD explains the teacher's top class; of several labels, each that is present is explained here. With
    ``divergence=l1`` it is the attention loss of Learning without Memorizing (CVPR 2019, arXiv 1811.08051).

    Works with any head: gradients take the place of a classifier's weight. Those of the student are differentiated
    once more, so that its features learn too.
    """

    labels = "any"

    def __init__(self, *, divergence: Literal["cosine", "l1"]) -> None:
        """Choose how maps are compared."""
        distance = DIVERGENCES[divergence]

        def of_positive_parts(student_BKP: Tensor, teacher_BKP: Tensor) -> Tensor:
            return distance(student_BKP.relu(), teacher_BKP.relu())

        super().__init__("grad_cam", view="grad_cams", divergence=of_positive_parts, support=POSITIVES)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        for role, network in (("student", student), ("teacher", teacher)):
            if not network.shape.map_is_pooled:
                raise ConfigError(
                    "method",
                    f"no gradient reaches the last map of the {role}, which classifies by a token of its own",
                    "choose a pooled network, head=csra, or method=cam_kd",
                )
        self.most = min(data.max_positives, len(data.label_names))
        self._look_at(student=_view(student), teacher=_view(teacher))
        return None


def _view(network: Network) -> View:
    # Where a linear layer follows a mean, the gradient of a label is the classifier's weight: no need to derive it.
    exact = isinstance(network.head, Linear) and network.anatomy.exact and not network.gradient_cams
    return "label_cams" if exact else "grad_cams"

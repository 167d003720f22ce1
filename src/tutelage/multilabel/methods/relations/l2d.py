"""L2D: logits of each label by itself, and the structure of label-wise embeddings."""

# B batch of this process, G batch of all, K labels, L labels of one image, D channels of a label's embedding

from torch import Tensor

from tutelage.core.distributed import gather_rows, global_sum
from tutelage.core.errors import ConfigError
from tutelage.multilabel.data.source import PRESENT, Batch
from tutelage.multilabel.methods.logits.functional import bernoulli_kl
from tutelage.multilabel.methods.method import DataInfo, Method
from tutelage.multilabel.methods.reductions import known_labels, real_images, weighted_label_sum
from tutelage.multilabel.methods.relations.functional import cam_weighted_features, class_aware, instance_aware
from tutelage.multilabel.methods.settings import not_negative
from tutelage.multilabel.networks.heads import MlDecoder
from tutelage.multilabel.networks.network import Network
from tutelage.multilabel.networks.output import Field, NetOutput


class L2d(Method):
    """Weighted sum of MLD, CD and ID (L2D, ICCV 2023, arXiv 2308.06453).

    MLD: KL of each label's Bernoulli. CD: of each label, distances between its embeddings in the images that have it.
    ID: of each image, distances between the embeddings of its labels. As published, CD is a sum over labels and ID a
    sum over images. Label embeddings are the head's (``head=ml_decoder``); where a network's head has none, its last
    features averaged by the softmax of each label's map (ours). Only distances are compared, so that the two networks'
    embeddings may differ in size and kind.

    All labels have an embedding: with thousands of labels this needs gigabytes.
    """

    labels = "multi"
    # What may be read; setup leaves what these networks need.
    student_reads = frozenset({"logits_BK", "label_embeddings_BKD", "cams_BKHW", "feature_map_BCHW"})
    teacher_reads = frozenset({"logits_BK", "label_embeddings_BKD", "cams_BKHW", "feature_map_BCHW"})

    def __init__(self, *, mld_weight: float, class_weight: float, instance_weight: float) -> None:
        """Choose the weights of MLD, CD and ID."""
        super().__init__()
        self.mld_weight = not_negative("mld_weight", mld_weight)
        self.class_weight = not_negative("class_weight", class_weight)
        self.instance_weight = not_negative("instance_weight", instance_weight)

    def setup(self, student: Network, teacher: Network, data: DataInfo) -> Network | None:
        self.student_reads = _reads(student, where="head.groups")
        self.teacher_reads = _reads(teacher, where="teacher.head.groups")
        self.max_positives = max(1, data.max_positives)
        return None

    def forward(self, student: NetOutput, teacher: NetOutput, batch: Batch, progress: float) -> dict[str, Tensor]:
        present_BK = (batch.target_BK == PRESENT) & real_images(batch)[:, None]
        student_BKD, teacher_BKD = _label_embeddings(student), _label_embeddings(teacher)
        mld_BK = bernoulli_kl(student.logits_BK.float(), teacher.logits_BK.float(), temperature=1.0)
        class_K = class_aware(gather_rows(student_BKD), gather_rows(teacher_BKD), positive_BK=gather_rows(present_BK))
        # The labels that each image has, and others up to the number that the richest has.
        counts_BL, labels_BL = present_BK.float().topk(self.max_positives, dim=1)
        index_BLD = labels_BL[:, :, None]
        instance_B = instance_aware(
            student_BKD.gather(1, index_BLD.expand(-1, -1, student_BKD.shape[2])),
            teacher_BKD.gather(1, index_BLD.expand(-1, -1, teacher_BKD.shape[2])),
            positive_BK=counts_BL,
        )
        return {
            "mld": self.mld_weight * weighted_label_sum(mld_BK, known_labels(batch).float(), batch),
            "class": self.class_weight * class_K.sum(),
            "instance": self.instance_weight * global_sum(instance_B, real_images(batch)),
        }


def _reads(network: Network, *, where: str) -> frozenset[Field]:
    if network.shape.label_embedding_dim is not None:
        return frozenset({"logits_BK", "label_embeddings_BKD"})
    if isinstance(network.head, MlDecoder):
        raise ConfigError(
            where,
            f"l2d compares an embedding of each label, and {network.spec.name}'s decoder has one for a group of labels",
            f"set {where}=null for a group a label, or take another head",
        )
    return frozenset({"logits_BK", "cams_BKHW", "feature_map_BCHW"})


def _label_embeddings(output: NetOutput) -> Tensor:
    if output.label_embeddings_BKD is not None:
        return output.label_embeddings_BKD.float()
    assert output.feature_map_BCHW is not None and output.cams_BKHW is not None
    return cam_weighted_features(output.feature_map_BCHW, output.cams_BKHW)

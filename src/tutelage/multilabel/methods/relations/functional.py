"""Losses on relations between images, labels or places, as pure functions.

All are in fp32. Those between images take the batch of all processes, of which ``valid_B`` says what counts.
"""

# B batch, C channels, P places, K labels, D channels of a label's embedding, M memory or queue,
# G groups of N embeddings

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.multilabel.methods.precision import full_precision
from tutelage.multilabel.networks.cam import area_pooled

EPS = 1e-7


def pairwise_distances(features_BC: Tensor) -> Tensor:
    """Euclidean distances [B, B] with zeros on the diagonal, and a gradient of 0 between equal rows."""
    features_BC = features_BC.float()
    return torch.cdist(features_BC, features_BC, compute_mode="donot_use_mm_for_euclid_dist")


def mean_normalised(distances: Tensor, pairs: Tensor) -> Tensor:
    """Divide distances by the mean of those that are above 0, among the pairs that count.

    Args:
        distances: [..., B, B].
        pairs: Of the same shape, or one that broadcasts: which count. Each leading index has a mean of its own.
    """
    positive = pairs & (distances > 0)
    count = positive.sum((-2, -1), keepdim=True)
    mean = (distances * positive).sum((-2, -1), keepdim=True) / count.clamp(min=1)
    return distances / torch.where(count > 0, mean, 1)


@full_precision
def rkd_distance(student_BC: Tensor, teacher_BC: Tensor, *, valid_B: Tensor) -> Tensor:
    """Huber between distances, each network's divided by their mean (RKD, arXiv 1904.05068): mean over B² pairs."""
    pairs_BB = valid_B[:, None] & valid_B
    student_BB = mean_normalised(pairwise_distances(student_BC), pairs_BB)
    teacher_BB = mean_normalised(pairwise_distances(teacher_BC), pairs_BB)
    return _mean(F.smooth_l1_loss(student_BB, teacher_BB, reduction="none"), pairs_BB)


@full_precision
def rkd_angle(student_BC: Tensor, teacher_BC: Tensor, *, valid_B: Tensor) -> Tensor:
    """Huber between cosines of the angles at an image between two others (RKD, arXiv 1904.05068): mean over B³."""
    huber_BBB = F.smooth_l1_loss(_angles(student_BC), _angles(teacher_BC), reduction="none")
    return _mean(huber_BBB, valid_B[:, None, None] & valid_B[:, None] & valid_B)


def _angles(features_BC: Tensor) -> Tensor:
    features_BC = features_BC.float()
    units_BBC = F.normalize(features_BC - features_BC[:, None], dim=2)  # from the first image to the second
    return units_BBC @ units_BBC.transpose(1, 2)


@full_precision
def sp(student_BC: Tensor, teacher_BC: Tensor, *, valid_B: Tensor) -> Tensor:
    """‖n(G_S) − n(G_T)‖²/B² of G = F Fᵀ, each row divided by its L2 norm (SP, arXiv 1907.09682).

    Args:
        student_BC: Maps or embeddings, B first; flattened here.
        teacher_BC: Likewise, of any other size.
        valid_B: Which rows count.
    """
    difference_BB = _similarities(student_BC, valid_B) - _similarities(teacher_BC, valid_B)
    return _mean(difference_BB.square(), valid_B[:, None] & valid_B)


def _similarities(features: Tensor, valid_B: Tensor) -> Tensor:
    features_BC = features.float().flatten(1) * valid_B[:, None]
    return F.normalize(features_BC @ features_BC.T, dim=1)


@full_precision
def pkt(student_BC: Tensor, teacher_BC: Tensor, *, valid_B: Tensor) -> Tensor:
    """Mean over B² of p_T log(p_T/p_S), p the rows of (1 + cosine)/2, each of sum 1 (PKT, arXiv 1803.10837)."""
    student_BB, teacher_BB = _affinities(student_BC, valid_B), _affinities(teacher_BC, valid_B)
    kl_BB = teacher_BB * ((teacher_BB + EPS) / (student_BB + EPS)).log()
    return _mean(kl_BB, valid_B[:, None] & valid_B)


def _affinities(features_BC: Tensor, valid_B: Tensor) -> Tensor:
    unit_BC = F.normalize(features_BC.float(), dim=1, eps=EPS)
    affinity_BB = (unit_BC @ unit_BC.T + 1) / 2 * valid_B
    return affinity_BB / affinity_BB.sum(1, keepdim=True).clamp(min=EPS)


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    # where, not a product: a value that does not count may be infinite.
    return torch.where(counts, values, 0).sum() / counts.sum().clamp(min=1)


def crd(positive_B: Tensor, negative_BM: Tensor, *, counts_BM: Tensor, num_samples: int) -> Tensor:
    """Noise-contrastive estimation: −log h(positive) − Σ log(1 − h(negative)) (CRD, arXiv 1910.10699).

    h(x) = x/(x + m/N) with m negatives of N samples.

    Args:
        positive_B: exp(similarity/τ)/Z to the same image in the other network's memory.
        negative_BM: The same to other images.
        counts_BM: Which of them are negatives; m counts these.
        num_samples: N.
    """
    positive_B, negative_BM = positive_B.float(), negative_BM.float()
    noise_B = counts_BM.sum(1).float() / num_samples
    found_B = (positive_B / (positive_B + noise_B + EPS)).log()
    refused_BM = (noise_B[:, None] / (negative_BM + noise_B[:, None] + EPS)).clamp(min=EPS).log()
    return -found_B - (refused_BM * counts_BM).sum(1)


@full_precision
def queue_relation(
    student_BC: Tensor, teacher_BC: Tensor, *, queue_MC: Tensor, filled_M: Tensor, temperature: float
) -> Tensor:
    """KL between softmaxes of the similarities of an image to queued ones (LightlyTrain, distillation v3).

    Args:
        student_BC: In the teacher's channels.
        teacher_BC: Embeddings.
        queue_MC: The teacher's embeddings of this and of earlier batches, of unit norm.
        filled_M: Which entries hold one; the others have no share of the softmax.
        temperature: Divides similarities.
    """
    student_BM, teacher_BM = (
        (F.normalize(x.float(), dim=1) @ queue_MC.T / temperature).masked_fill(~filled_M, -1e9).log_softmax(1)
        for x in (student_BC, teacher_BC)
    )
    return (teacher_BM.exp() * (teacher_BM - student_BM)).sum(1)


@full_precision
def token_relation(student_BCHW: Tensor, teacher_BCHW: Tensor, *, temperature: float) -> Tensor:
    """KL between softmaxes of the similarities of a place to all places of its image (LightlyTrain, distillation v3).

    Args:
        student_BCHW: On the teacher's grid; channels may differ.
        teacher_BCHW: Teacher's map.
        temperature: Divides similarities.

    Returns:
        [B]: mean over places.
    """
    student_BPP, teacher_BPP = (_place_relations(x, temperature) for x in (student_BCHW, teacher_BCHW))
    return (teacher_BPP.exp() * (teacher_BPP - student_BPP)).sum(2).mean(1)


def _place_relations(maps_BCHW: Tensor, temperature: float) -> Tensor:
    unit_BCP = F.normalize(maps_BCHW.float().flatten(2), dim=1)
    return (unit_BCP.transpose(1, 2) @ unit_BCP / temperature).log_softmax(2)


@full_precision
def class_aware(student_BKD: Tensor, teacher_BKD: Tensor, *, positive_BK: Tensor) -> Tensor:
    """L2D's CD: of each label, Huber between distances of its embeddings in the images that have it (arXiv 2308.06453).

    Distances are divided by their mean; of a label with n ≥ 2 images the sum over pairs is divided by n.

    Returns:
        [K]: 0 for labels of fewer images.
    """
    present_KB = positive_BK.T.bool()
    return _structural(student_BKD.transpose(0, 1), teacher_BKD.transpose(0, 1), present_KB)


@full_precision
def instance_aware(student_BKD: Tensor, teacher_BKD: Tensor, *, positive_BK: Tensor) -> Tensor:
    """L2D's ID: of each image, the same between the embeddings of its labels (arXiv 2308.06453).

    Returns:
        [B]: 0 for images of fewer than two labels.
    """
    return _structural(student_BKD, teacher_BKD, positive_BK.bool())


def _structural(student_GND: Tensor, teacher_GND: Tensor, counts_GN: Tensor) -> Tensor:
    # Each group by itself, of the embeddings that count in it.
    pairs_GNN = counts_GN[:, :, None] & counts_GN[:, None, :]
    student_GNN = mean_normalised(pairwise_distances(student_GND), pairs_GNN)
    teacher_GNN = mean_normalised(pairwise_distances(teacher_GND), pairs_GNN)
    huber_GNN = F.smooth_l1_loss(student_GNN, teacher_GNN, reduction="none") * pairs_GNN
    return huber_GNN.sum((1, 2)) / counts_GN.sum(1).clamp(min=1)


@full_precision
def cam_weighted_features(features_BCHW: Tensor, cams_BKHW: Tensor) -> Tensor:
    """A label's embedding where the head has none: features averaged by the softmax of its map over places (ours).

    Args:
        features_BCHW: The last map.
        cams_BKHW: On the same grid, or one that is pooled to it.

    Returns:
        [B, K, C].
    """
    height, width = features_BCHW.shape[2:]
    if tuple(cams_BKHW.shape[2:]) != (height, width):
        cams_BKHW = area_pooled(cams_BKHW, size=(height, width))
    return torch.einsum("bkp,bcp->bkc", cams_BKHW.float().flatten(2).softmax(2), features_BCHW.float().flatten(2))

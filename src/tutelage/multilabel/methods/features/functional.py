"""Losses between feature maps or embeddings, as pure functions.

Each returns one value an image, in fp32, so that its caller decides which rows count. None reads labels, except
:func:`ofa`, which is made for single-label data.
"""

# B batch, C D channels, H W map, P = H·W places, K labels, N hashes; k n R singular vectors, or channels of the smaller
# side of a projection (k) and those that the larger has more (R)

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.multilabel.methods.hashing import hashed
from tutelage.multilabel.methods.logits.functional import masked_log_softmax
from tutelage.multilabel.methods.precision import full_precision


def on_smaller_grid(a_BCHW: Tensor, b_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Average two maps down to the smaller height and the smaller width. Their channels may differ."""
    size = (min(a_BCHW.shape[2], b_BCHW.shape[2]), min(a_BCHW.shape[3], b_BCHW.shape[3]))
    return pooled_to(a_BCHW, size), pooled_to(b_BCHW, size)


def pooled_to(maps_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Average a map down to a size."""
    return maps_BCHW if tuple(maps_BCHW.shape[2:]) == size else F.adaptive_avg_pool2d(maps_BCHW, size)


def mse(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Mean square of the difference over channels and places: FitNets (arXiv 1412.6550), SimKD (arXiv 2203.14001)."""
    return (student_BCHW.float() - teacher_BCHW.float()).square().flatten(1).mean(1)


def vid(mean_BCHW: Tensor, teacher_BCHW: Tensor, *, variance_C: Tensor) -> Tensor:
    """½[(μ − F_T)²/σ² + log σ²], mean over channels and places (VID, arXiv 1904.05835; ½ log 2π left out).

    The variance is the caller's to train: held fixed, this is an MSE.
    """
    variance_C11 = variance_C.float()[:, None, None]
    square_BCHW = (mean_BCHW.float() - teacher_BCHW.float()).square()
    return (0.5 * (square_BCHW / variance_C11 + variance_C11.log())).flatten(1).mean(1)


def batch_norm_margin(weight_C: Tensor, bias_C: Tensor) -> Tensor:
    """E[x | x < 0] for x ~ N(β, γ²), what a batch norm puts out: OFD's margin (arXiv 1904.01866).

    Where x is hardly ever negative (probability ≤ 0.001) it is −3|γ|, as in their code.
    """
    std_C, mean_C = weight_C.double().abs().clamp(min=1e-12), bias_C.double()
    negative_C = 0.5 * torch.erfc(mean_C / std_C / math.sqrt(2))
    density_C = torch.exp(-(mean_C / std_C).square() / 2) / math.sqrt(2 * math.pi)
    expected_C = mean_C - std_C * density_C / negative_C.clamp(min=1e-12)
    return torch.where(negative_C > 0.001, expected_C, -3 * std_C).float()


def ofd(student_BCHW: Tensor, teacher_BCHW: Tensor, *, margin_C: Tensor) -> Tensor:
    """Partial L2 after a margin ReLU, summed over channels and places (OFD, arXiv 1904.01866).

    t = max(F_T, m); where t ≤ 0 and the student lies at or below it, nothing is asked.

    Args:
        student_BCHW: Before its ReLU, in the teacher's channels.
        teacher_BCHW: Before its ReLU.
        margin_C: m, below 0; see :func:`batch_norm_margin`.
    """
    student_BCHW = student_BCHW.float()
    target_BCHW = torch.maximum(teacher_BCHW.float(), margin_C[:, None, None])
    counts_BCHW = (student_BCHW > target_BCHW) | (target_BCHW > 0)
    return ((student_BCHW - target_BCHW).square() * counts_BCHW).flatten(1).sum(1)


def hierarchical_context(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Weighted mean of MSEs, whole and pooled to 4, 2 and 1: weights 1, ½, ¼, ⅛ (ReviewKD, arXiv 2104.09044).

    Levels that are no smaller than the map are left out, and the weights go to those that remain.
    """
    loss_B, total, weight = mse(student_BCHW, teacher_BCHW), 1.0, 1.0
    for side in (4, 2, 1):
        if side >= student_BCHW.shape[2]:
            continue
        weight /= 2
        total += weight
        loss_B = loss_B + weight * mse(
            pooled_to(student_BCHW.float(), (side, side)), pooled_to(teacher_BCHW.float(), (side, side))
        )
    return loss_B / total


@full_precision
def nst(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Squared MMD between channels, kernel (x·y)² of maps of unit norm (NST, arXiv 1707.01219).

    Mean kernel of teacher pairs plus that of student pairs, less twice that of mixed pairs. With the kernel (x·y)² this
    is ‖AᵀA/C_S − TᵀT/C_T‖² over places: [P, P] matrices in place of [C_S, C_T] where places are fewer.

    Args:
        student_BCHW: On the teacher's grid; channels may differ.
        teacher_BCHW: Teacher's map.
    """
    student_BCP = F.normalize(student_BCHW.float().flatten(2), dim=2)
    teacher_BCP = F.normalize(teacher_BCHW.float().flatten(2), dim=2)
    if student_BCP.shape[2] <= student_BCP.shape[1] + teacher_BCP.shape[1]:
        return (_second_moment(student_BCP) - _second_moment(teacher_BCP)).square().sum((1, 2))
    return (
        _mean_kernel(teacher_BCP, teacher_BCP)
        + _mean_kernel(student_BCP, student_BCP)
        - 2 * _mean_kernel(student_BCP, teacher_BCP)
    )


def _second_moment(maps_BCP: Tensor) -> Tensor:
    return maps_BCP.transpose(1, 2) @ maps_BCP / maps_BCP.shape[1]


def _mean_kernel(a_BCP: Tensor, b_BCP: Tensor) -> Tensor:
    return (a_BCP @ b_BCP.transpose(1, 2)).square().mean((1, 2))


@full_precision
def kdsvd(student: Sequence[Tensor], teacher: Sequence[Tensor], *, rank: int) -> Tensor:
    """Squared differences of RBF kernels between singular vectors of one stage and the next (KDSVD, arXiv 1807.06819).

    A map is a matrix of places × channels; v are its right singular vectors, over channels, each times the teacher's
    singular value (of norm 1 together). For each of the teacher's ``rank`` vectors the student's most similar of its
    first ``rank`` + 3 is taken, with its sign. Between stages: exp(−(v_i − v_{i−1})²/8), for each pair of channels.

    Args:
        student: Maps [B, C_i, H_i, W_i], in the teacher's channels; their grids may differ.
        teacher: Maps, two or more.
        rank: Singular vectors of each.
    """
    loss_B = torch.zeros(student[0].shape[0], device=student[0].device)
    previous: tuple[Tensor, Tensor] | None = None
    for student_BCHW, teacher_BCHW in zip(student, teacher, strict=True):
        teacher_BCk, values_Bk = right_singular_vectors(teacher_BCHW, rank=rank)
        student_BCk, _ = right_singular_vectors(student_BCHW, rank=rank + 3)
        student_BCk = _aligned(student_BCk, teacher_BCk)
        values_B1k = F.normalize(values_Bk, dim=1)[:, None]
        student_BCk, teacher_BCk = student_BCk * values_B1k, teacher_BCk * values_B1k
        if previous is not None:
            loss_B = loss_B + _rbf_distance((student_BCk, previous[0]), (teacher_BCk, previous[1]))
        previous = (student_BCk, teacher_BCk)
    return loss_B


def right_singular_vectors(maps_BCHW: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """First right singular vectors of [P, C] matrices, with a gradient that stays finite.

    The gradient that torch gives is 0/0 where singular values are equal, as those of dead channels are. Here the
    vectors are found without gradient and then corrected to first order: v_i + Σ_j v_j (v_jᵀ A v_i)/(λ_i − λ_j), with
    A = XᵀX, is v_i in value and has its derivative. Pairs of equal λ, where that is undefined, are left out.

    Returns:
        Vectors [B, C, k] and singular values [B, k], largest first; k is ``rank`` or what the map's size allows.
    """
    matrix_BPC = maps_BCHW.float().flatten(2).transpose(1, 2)
    with torch.no_grad():
        _, values_BR, vectors_BRC = torch.linalg.svd(matrix_BPC, full_matrices=False)
        # A vector's sign is free, and the kernels depend on it: its channels' sum is made positive (ours).
        all_BCR = vectors_BRC.mT * torch.where(vectors_BRC.sum(2) < 0, -1.0, 1.0)[:, None]
    first_BCk, squares_BR = all_BCR[:, :, :rank], values_BR.square()
    image_BCk = matrix_BPC.transpose(1, 2) @ (matrix_BPC @ first_BCk)  # A v_i: the only part with a gradient
    along_BRk = all_BCR.transpose(1, 2) @ image_BCk
    gap_BRk = squares_BR[:, None, :rank] - squares_BR[:, :, None]
    distinct_BRk = gap_BRk.abs() > 1e-6 * squares_BR[:, :1, None]
    share_BRk = torch.where(distinct_BRk, along_BRk / torch.where(distinct_BRk, gap_BRk, 1), 0)
    beyond_BCk = (image_BCk - all_BCR @ along_BRk) / squares_BR[:, None, :rank].clamp(min=1e-12)
    correction_BCk = all_BCR @ share_BRk + beyond_BCk
    # In value the correction is rounding alone: only its gradient is wanted.
    return first_BCk + (correction_BCk - correction_BCk.detach()), values_BR[:, :rank]


def _aligned(vectors_BCn: Tensor, to_BCk: Tensor) -> Tensor:
    cosine_Bnk = vectors_BCn.transpose(1, 2) @ to_BCk
    best_B1k = cosine_Bnk.detach().abs().argmax(1, keepdim=True)
    signs_Bnk = torch.zeros_like(cosine_Bnk).scatter(1, best_B1k, 1.0) * cosine_Bnk.detach().sign()
    return vectors_BCn @ signs_Bnk


def _rbf_distance(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Σ (exp(−(a_S − b_S)²/8) − exp(−(a_T − b_T)²/8))² over all pairs of channels and all vectors.

    By its Taylor series a kernel is a product Φ(a) Φ(b)ᵀ. The difference of two kernels is then U Vᵀ with
    U = [Φ(a_S) − Φ(a_T), Φ(a_T)] and V = [Φ(b_S), Φ(b_S) − Φ(b_T)], and the sum of its squares is that of UᵀU times
    VᵀV. No matrix [C, D] is made, which for the last stages of a ResNet-50 would have two million entries an image.

    Args:
        student: Vectors [B, C, k] of one stage and [B, D, k] of another; no entry exceeds 1.
        teacher: Likewise.

    Returns:
        [B].
    """
    (a_student, b_student), (a_teacher, b_teacher) = (
        [_rbf_series(vectors_BCk) for vectors_BCk in pair] for pair in (student, teacher)
    )
    u, v = torch.cat([a_student - a_teacher, a_teacher], 3), torch.cat([b_student, b_student - b_teacher], 3)
    return ((u.mT @ u) * (v.mT @ v)).sum((1, 2, 3))


def _rbf_series(vectors_BCk: Tensor, *, terms: int = 8) -> Tensor:
    # [B, k, C, terms]: exp(−(a − b)²/8) = Σ_n φ_n(a) φ_n(b) with φ_n(x) = exp(−x²/8)·(x/2)ⁿ/√n!. What eight terms leave
    # out is below 4e-10, where |a| and |b| are at most 1.
    x_BkC1 = vectors_BCk.mT[..., None]
    order = torch.arange(terms, device=x_BkC1.device)
    return torch.exp(-x_BkC1.square() / 8) * (x_BkC1 / 2) ** order / torch.lgamma(order + 1.0).mul(0.5).exp()


def wkd_f(student_BCHW: Tensor, teacher_BCHW: Tensor, *, grid: int, mean_weight: float, eps: float = 1e-5) -> Tensor:
    """w‖Δmean‖² + ‖Δstd‖² of each channel, in each cell of a grid, mean over cells (WKD, arXiv 2412.08139).

    Wasserstein distance between Gaussians with a diagonal covariance; the std is unbiased, as in their code.

    Args:
        student_BCHW: In the teacher's channels; its grid may differ.
        teacher_BCHW: Teacher's map.
        grid: Cells a side; no more than the maps' sides.
        mean_weight: w.
        eps: Added to the variance.
    """
    loss_B = torch.zeros(student_BCHW.shape[0], device=student_BCHW.device)
    for student_cell, teacher_cell in zip(_cells(student_BCHW, grid), _cells(teacher_BCHW, grid), strict=True):
        (mean_s, std_s), (mean_t, std_t) = _moments(student_cell, eps), _moments(teacher_cell, eps)
        loss_B = loss_B + mean_weight * (mean_s - mean_t).square().sum(1) + (std_s - std_t).square().sum(1)
    return loss_B / grid**2


def _cells(maps_BCHW: Tensor, grid: int) -> list[Tensor]:
    # The cells of adaptive pooling: they overlap where the side does not divide.
    def edges(side: int) -> list[tuple[int, int]]:
        return [(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)]

    height, width = maps_BCHW.shape[2:]
    return [maps_BCHW[:, :, top:low, left:right] for top, low in edges(height) for left, right in edges(width)]


def _moments(cell_BCHW: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    places_BCP = cell_BCHW.float().flatten(2)
    # A cell of one place has no spread (torch's unbiased variance would be NaN).
    variance_BC = places_BCP.var(2, correction=min(1, places_BCP.shape[2] - 1))
    return places_BCP.mean(2), (variance_BC + eps).sqrt()


def vkd(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Smooth L1 to the teacher's standardised embedding, mean over channels (VkD, arXiv 2403.06213).

    Args:
        student_BC: After an orthogonal projection to the teacher's channels.
        teacher_BC: Embedding, as the teacher gives it.
    """
    teacher_BC = teacher_BC.float()
    standard_BC = F.layer_norm(teacher_BC, teacher_BC.shape[1:])
    return F.smooth_l1_loss(student_BC.float(), standard_BC, reduction="none").mean(1)


@full_precision
def orthogonal_projection(features_BC: Tensor, *, square_kk: Tensor, rest_Rk: Tensor) -> Tensor:
    """Project by a matrix P with orthonormal columns, or by Pᵀ, between k and k + R channels.

    P is the Cayley transform (I − A/2)⁻¹(I + A/2) of the skew-symmetric A = [[X − Xᵀ, −Rᵀ], [R, 0]], cut to its first k
    columns. With S = I − (X − Xᵀ)/2 + RᵀR/4 these are [2S⁻¹ − I; R S⁻¹]. P itself is not made: one linear system of
    size k is solved for the batch. The Householder products of torch's ``orthogonal`` took 50 times as long as a step
    of a small student without them (ResNet-50 → EfficientNet-Lite0, on a CPU).

    Args:
        features_BC: C is k, or k + R.
        square_kk: X, with k the smaller of the two numbers of channels.
        rest_Rk: R rows, by how many channels the two differ.

    Returns:
        [B, k + R], or [B, k] of k + R channels; fp32.
    """
    features_BC, rest_Rk, k = features_BC.float(), rest_Rk.float(), len(square_kk)
    skew_kk = (square_kk - square_kk.T).float() / 2
    system_kk = torch.eye(k, device=skew_kk.device) - skew_kk + rest_Rk.T @ rest_Rk / 4
    if features_BC.shape[1] == k:
        half_Bk: Tensor = torch.linalg.solve(system_kk, features_BC.T).T
        return torch.cat([2 * half_Bk - features_BC, half_Bk @ rest_Rk.T], 1)
    first_Bk, beyond_BR = features_BC[:, :k], features_BC[:, k:]
    solved_Bk: Tensor = torch.linalg.solve(system_kk.T, (2 * first_Bk + beyond_BR @ rest_Rk).T).T
    return solved_Bk - first_Bk


@full_precision
def lsh(student_BC: Tensor, teacher_BC: Tensor, *, weight_NC: Tensor, bias_N: Tensor) -> Tensor:
    """BCE(W f_S + b, 1[W f_T + b > 0]), mean over hashes (LSHFM, TPAMI 2021)."""
    hash_BN = F.linear(student_BC.float(), weight_NC, bias_N)
    side_BN = (F.linear(teacher_BC.float(), weight_NC, bias_N) > 0).float()
    return F.binary_cross_entropy_with_logits(hash_BN, side_BN, reduction="none").mean(1)


def ofa(
    student_logits_BK: Tensor, teacher_logits_BK: Tensor, target_BK: Tensor, *, exponent: float, temperature: float
) -> Tensor:
    """−Σ_k [(p_T + y)^γ − y] log p_S, p the softmax over labels (OFA-KD, arXiv 2310.19444). Single-label.

    Labels that are unknown (−1) leave both softmaxes.
    """
    known_BK = target_BK != -1
    student_BK, teacher_BK = (
        masked_log_softmax(logits_BK.float() / temperature, known_BK)
        for logits_BK in (student_logits_BK, teacher_logits_BK)
    )
    positive_BK = (target_BK == 1).float()
    weight_BK = (teacher_BK.exp() + positive_BK) ** exponent - positive_BK
    return -torch.where(known_BK, weight_BK * student_BK, 0).sum(1)


def squared_distance(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Squared differences summed over channels and places: ViTKD's mimicking of shallow layers (arXiv 2209.02432)."""
    return (student_BCHW.float() - teacher_BCHW.float()).square().flatten(1).sum(1)


def masked_distance(generated_BCHW: Tensor, teacher_BCHW: Tensor, *, hidden_BHW: Tensor, ratio: float) -> Tensor:
    """Squared differences summed over channels and hidden places, over the ratio hidden: ViTKD's generation.

    Args:
        generated_BCHW: What a generator made of a student's map whose places were partly hidden.
        teacher_BCHW: The whole map.
        hidden_BHW: Which places were hidden.
        ratio: How many of them, in (0, 1].
    """
    square_BHW = (generated_BCHW.float() - teacher_BCHW.float()).square().sum(1)
    return (square_BHW * hidden_BHW).sum((1, 2)) / ratio


def hidden_places(index_B: Tensor, *, step: Tensor, size: tuple[int, int], ratio: float) -> Tensor:
    """Choose the places that are hidden: a function of (sample, step) and of nothing else.

    A generator's state would differ between one process and two; a hash of the place's name does not.

    Args:
        index_B: Samples.
        step: Of training, a scalar.
        size: Height and width of the map.
        ratio: Share of places that are hidden; at least one stays.

    Returns:
        Booleans [B, H, W].
    """
    places = size[0] * size[1]
    name_BP = index_B[:, None] * places + torch.arange(places, device=index_B.device)
    kept = max(1, int(places * (1 - ratio)))
    return (hashed(name_BP, key=step).argsort(1).argsort(1) >= kept).reshape(-1, *size)

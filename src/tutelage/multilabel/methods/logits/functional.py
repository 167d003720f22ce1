"""Losses on logits: pure functions of fp32 tensors, not yet averaged over images.

Those made for several labels treat each label by itself or against the absent ones. Those made for a single label
take a softmax over all labels; given several present labels they see them as one class whose logit is the
log-sum-exp of theirs, so that with one present label they are the published formula.

A label that is not known enters nothing: neither as a term nor in the denominator of a softmax.
"""

# B batch, K labels

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

# A logit that has no part in a softmax. Finite, so that a row in which nothing counts has no NaN.
EXCLUDED = -1e9


def bernoulli_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL(Bern σ(z_T/T) ‖ Bern σ(z_S/T))·T² of each logit (MLD of L2D, ICCV 2023, arXiv 2308.06453).

    Label contract: any number of labels, each by itself. The gradient is T·(σ(z_S/T) − σ(z_T/T)).

    Args:
        student: Logits of any shape.
        teacher: Of the same shape.
        temperature: T.
    """
    student, teacher = student / temperature, teacher / temperature
    present, absent = teacher.sigmoid(), (-teacher).sigmoid()
    kl = present * (logsigmoid(teacher) - logsigmoid(student)) + absent * (logsigmoid(-teacher) - logsigmoid(-student))
    return temperature**2 * kl


def mean_bernoulli_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Mean of :func:`bernoulli_kl` over places, the last dimension: logits have one, regions have more."""
    return bernoulli_kl(student, teacher, temperature=temperature).mean(-1)


def softmax_kl(student_BK: Tensor, teacher_BK: Tensor, *, counted_BK: Tensor, temperature: float) -> Tensor:
    """T²·KL(softmax(z_T/T) ‖ softmax(z_S/T)) of each image (Hinton et al., 2015, arXiv 1503.02531).

    Label contract: a single label.

    Args:
        student_BK: Logits.
        teacher_BK: Logits.
        counted_BK: Which labels take part in the softmax.
        temperature: T.

    Returns:
        [B]; 0 for an image in which no label counts.
    """
    log_student_BK = masked_log_softmax(student_BK / temperature, counted_BK)
    log_teacher_BK = masked_log_softmax(teacher_BK / temperature, counted_BK)
    return temperature**2 * (log_teacher_BK.exp() * (log_teacher_BK - log_student_BK)).sum(1)


def standardised(logits_BK: Tensor, *, counted_BK: Tensor, epsilon: float = 1e-7) -> Tensor:
    """(z − mean z) / (std z + ε) over the labels of each image (logit standardisation, CVPR 2024, arXiv 2403.01427).

    The standard deviation is the sample's (divided by K − 1), as in its code.
    """
    count_B1 = counted_BK.sum(1, keepdim=True)
    centred_BK = logits_BK - (logits_BK * counted_BK).sum(1, keepdim=True) / count_B1.clamp(min=1)
    variance_B1 = (centred_BK.square() * counted_BK).sum(1, keepdim=True) / (count_B1 - 1).clamp(min=1)
    # The root has no finite slope at 0, where all logits of an image are equal.
    return centred_BK / (variance_B1.clamp(min=epsilon**2).sqrt() + epsilon)


def decoupled_kl(
    student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, *, counted_BK: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Split of :func:`softmax_kl` in two (DKD, CVPR 2022, arXiv 2203.08679, eq. 7).

    T²·KL(b_T ‖ b_S) of the binary distributions b of "the present label or another" (TCKD), and T²·KL of the softmaxes
    over the other labels alone (NCKD). softmax_kl = TCKD + (1 − p_T)·NCKD, with p_T the teacher's probability of the
    present label.

    Label contract: a single label.

    Returns:
        TCKD [B] and NCKD [B].
    """
    student_BK, teacher_BK = student_BK / temperature, teacher_BK / temperature
    present_BK, absent_BK = counted_BK & (target_BK == 1), counted_BK & (target_BK == 0)
    # The binary softmax is a sigmoid of the difference of two log-sum-exps.
    student_B = _logsumexp(student_BK, present_BK) - _logsumexp(student_BK, absent_BK)
    teacher_B = _logsumexp(teacher_BK, present_BK) - _logsumexp(teacher_BK, absent_BK)
    target_B = bernoulli_kl(student_B, teacher_B, temperature=1)
    other_B = softmax_kl(student_BK, teacher_BK, counted_BK=absent_BK, temperature=1)
    return temperature**2 * target_B, temperature**2 * other_B


def normalised_kd(
    student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, *, counted_BK: Tensor, gamma: float, temperature: float
) -> Tensor:
    """−p_T log p_S of the present label − γ·T²·Σ p̂_T log p̂_S (NKD, ICCV 2023, arXiv 2303.13005).

    p is the softmax at temperature 1, p̂ that at T over the labels that are not present. A cross-entropy: it is not 0
    where both networks agree.

    Label contract: a single label.

    Returns:
        [B].
    """
    present_BK, absent_BK = counted_BK & (target_BK == 1), counted_BK & (target_BK == 0)
    log_student_BK = masked_log_softmax(student_BK, counted_BK)
    teacher_probability_BK = masked_log_softmax(teacher_BK, counted_BK).exp()
    target_B = -(teacher_probability_BK * log_student_BK * present_BK).sum(1)
    log_others_BK = masked_log_softmax(student_BK / temperature, absent_BK)
    teacher_others_BK = masked_log_softmax(teacher_BK / temperature, absent_BK).exp()
    return target_B - gamma * temperature**2 * (teacher_others_BK * log_others_BK * absent_BK).sum(1)


def partial_softmax_kl(student_BK: Tensor, teacher_BK: Tensor, target_BK: Tensor, *, counted_BK: Tensor) -> Tensor:
    """Σ_j KL(softmax z_T over {j} ∪ absent ‖ softmax z_S over the same), over the present labels j (partial softmax).

    L2D (ICCV 2023) has it as a baseline. Computed without a softmax for each j: the KL over {j} ∪ absent is the binary
    KL of "j or an absent label", plus (1 − p_T(j)) times the KL over the absent labels, which all j share.

    Label contract: several labels, present against absent.

    Returns:
        [B]; 0 for an image without a present label.
    """
    present_BK, absent_BK = counted_BK & (target_BK == 1), counted_BK & (target_BK == 0)
    student_BK = student_BK - _logsumexp(student_BK, absent_BK)[:, None]
    teacher_odds_BK = teacher_BK - _logsumexp(teacher_BK, absent_BK)[:, None]
    binary_BK = bernoulli_kl(student_BK, teacher_odds_BK, temperature=1)
    absent_B = softmax_kl(student_BK, teacher_BK, counted_BK=absent_BK, temperature=1)
    each_BK = binary_BK + (-teacher_odds_BK).sigmoid() * absent_B[:, None]
    return each_BK.masked_fill(~present_BK, 0).sum(1)


def mean_partial_softmax(logits_BK: Tensor, target_BK: Tensor, *, counted_BK: Tensor) -> Tensor:
    """log RS_j = log (1/|M|) Σ_{t ∈ M} e^{z_j} / (e^{z_t} + Σ_{k ∉ M} e^{z_k}), M the present labels.

    From MSKD (AAAI 2025). Of an absent label it is the mean over t of its softmax over {t} ∪ absent. That of a present
    label may exceed 1 where other present ones are far weaker; it is cut there, as in their code.

    Returns:
        [B, K]; 0 where a label does not count or the image has no present label.
    """
    present_BK, absent_BK = counted_BK & (target_BK == 1), counted_BK & (target_BK == 0)
    against_BK = torch.logaddexp(logits_BK, _logsumexp(logits_BK, absent_BK)[:, None])
    count_B1 = present_BK.sum(1, keepdim=True)
    mean_B1 = _logsumexp(-against_BK, present_BK)[:, None] - count_B1.clamp(min=1).log()
    return (logits_BK + mean_B1).clamp(max=0).masked_fill(~counted_BK | (count_B1 == 0), 0)


def balanced_kl(
    student_BK: Tensor,
    teacher_BK: Tensor,
    target_BK: Tensor,
    *,
    counted_BK: Tensor,
    temperature: float,
    omega: float,
    gamma_present: float,
    gamma_absent: float,
) -> Tensor:
    """T²·Σ_j w_j·p_j·log(p_j / q_j), p and q :func:`mean_partial_softmax` of z_T/T and z_S/T (MBD of MSKD, AAAI 2025).

    w_j = |(1 − ω) + ω·p_j − q_j|^γ₊ of a present label, |ω·p_j − q_j|^γ₋ of an absent one: how far the student is from
    a mixture of teacher and label. As focal weights, ours carry no gradient: at γ < 1 their slope has no bound.

    Label contract: several labels, present against absent.

    Returns:
        [B]; 0 for an image without a present label.
    """
    log_student_BK = mean_partial_softmax(student_BK / temperature, target_BK, counted_BK=counted_BK)
    log_teacher_BK = mean_partial_softmax(teacher_BK / temperature, target_BK, counted_BK=counted_BK)
    teacher_BK, student_BK = log_teacher_BK.exp(), log_student_BK.exp()
    present_BK = (target_BK == 1).to(student_BK.dtype)
    mixture_BK = (1 - omega) * present_BK + omega * teacher_BK
    distance_BK = (mixture_BK - student_BK).abs().detach()
    weight_BK = torch.where(target_BK == 1, distance_BK**gamma_present, distance_BK**gamma_absent)
    return temperature**2 * (weight_BK * teacher_BK * (log_teacher_BK - log_student_BK)).sum(1)


def pearson_distance(student: Tensor, teacher: Tensor, *, counted: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """1 − ρ along one dimension, ρ Pearson's correlation of what counts (DIST, NeurIPS 2022, arXiv 2205.10536).

    Returns:
        The distances, and which of them have two entries or more; the others have no correlation.
    """
    count = counted.sum(dim, keepdim=True)
    student, teacher = (
        (values - (values * counted).sum(dim, keepdim=True) / count.clamp(min=1)) * counted
        for values in (student, teacher)
    )
    correlation = torch.nn.functional.cosine_similarity(student, teacher, dim=dim)
    return 1 - correlation, count.squeeze(dim) > 1


def masked_log_softmax(logits_BK: Tensor, counted_BK: Tensor) -> Tensor:
    """Log-softmax over the labels that count. The others have a value far below, which has no meaning."""
    return logits_BK.masked_fill(~counted_BK, EXCLUDED).log_softmax(1)


def _logsumexp(logits_BK: Tensor, counted_BK: Tensor) -> Tensor:
    return logits_BK.masked_fill(~counted_BK, EXCLUDED).logsumexp(1)

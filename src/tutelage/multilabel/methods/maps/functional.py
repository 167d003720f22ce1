"""Maps over space: common grids, divergences between maps, attention. Pure functions of fp32 tensors."""

# B batch, K labels, C channels, H W map, P = H·W places, R places of one grid

from torch import Tensor
from torch.nn import functional

from tutelage.multilabel.networks.cam import area_pooled


def common_size(a: Tensor, b: Tensor) -> tuple[int, int]:
    """Return the smaller height and the smaller width of two sets of maps [..., H, W]."""
    return min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1])


def on_common_grid(a: Tensor, b: Tensor, *, grid: int | None = None) -> tuple[Tensor, Tensor]:
    """Pool two sets of maps to one grid by :func:`area_pooled`, and flatten space.

    Args:
        a: [..., H, W].
        b: The same with an H and W of its own.
        grid: Side of the grid; None takes the smaller height and the smaller width.

    Returns:
        Both as [..., P].
    """
    size = common_size(a, b) if grid is None else (grid, grid)
    return area_pooled(a, size=size).flatten(-2), area_pooled(b, size=size).flatten(-2)


def split_mse(difference: Tensor) -> tuple[Tensor, Tensor]:
    """Split a mean square over space, the last dimension, into the square of the mean and the variance.

    mean_p Δ² = (mean_p Δ)² + Var_p Δ. For CAMs of linear GAP heads the mean of Δ is the difference of the logits
    less that of the biases: the first term is logit distillation, the second is purely spatial.
    """
    mean = difference.mean(-1, keepdim=True)
    return mean.squeeze(-1).square(), (difference - mean).square().mean(-1)


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_p (S − T)² over places, the last dimension."""
    return (student - teacher).square().mean(-1)


def absolute_error(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_p |S − T| over places, the last dimension."""
    return (student - teacher).abs().mean(-1)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cos(S, T) over places, the last dimension.

    P/2 times the mean square of maps that are divided by their norm, which is how CAT-KD compares unlike networks.
    """
    return 1 - functional.cosine_similarity(student, teacher, dim=-1)


def spatial_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """τ²·KL(softmax_p(T/τ) ‖ softmax_p(S/τ)) over places, the last dimension (CWD, ICCV 2021, arXiv 2011.13256, eq. 5).

    Label contract: any; each map is a distribution over space of its own.
    """
    log_student = (student / temperature).log_softmax(-1)
    log_teacher = (teacher / temperature).log_softmax(-1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(-1)


def normalised_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_p (S/‖S‖ − T/‖T‖)² over places, the last dimension (CAT-KD, CVPR 2023, with normalisation)."""
    return squared_error(functional.normalize(student, dim=-1), functional.normalize(teacher, dim=-1))


def normalised_absolute_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_p |S/‖S‖ − T/‖T‖| over places, the last dimension (Learning without Memorizing, CVPR 2019)."""
    return (functional.normalize(student, dim=-1) - functional.normalize(teacher, dim=-1)).abs().sum(-1)


def attention(features_BCHW: Tensor) -> Tensor:
    """mean_c F²: where a stage is active (attention transfer, ICLR 2017, arXiv 1612.03928).

    Returns:
        [B, H, W], fp32.
    """
    return features_BCHW.float().square().mean(1)


def region_logits(cams_BKHW: Tensor, logits_BK: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Logits of the regions of a grid, as the classifier would give them (SDD, CVPR 2024, arXiv 2403.13512).

    fc(pool F) of a linear classifier is the pooled CAM plus the bias, and the bias is what the logit has beside the
    mean of the map. The mean over the regions is the logit, so that at the size (1, 1) they are the logits.

    Args:
        cams_BKHW: Of a head where map mean plus bias is the logit.
        logits_BK: Of the same head.
        size: Height and width of the grid of regions.

    Returns:
        [B, K, R].
    """
    return area_pooled(cams_BKHW, size=size).flatten(2) + (logits_BK - cams_BKHW.mean((2, 3)))[:, :, None]

"""Class activation maps as pure functions."""

# B batch, K labels, C channels, H W map

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def linear_cam(features_BCHW: Tensor, weight_KC: Tensor) -> Tensor:
    """Apply a classifier's weight, without its bias, at each location (Zhou et al., CVPR 2016).

    Returns:
        Maps [B, K, H, W]. After global average pooling and a linear layer, their mean plus bias is the logits.
    """
    return functional.conv2d(features_BCHW, weight_KC[:, :, None, None])


def grad_cam(scores: Callable[[Tensor], Tensor], features: Tensor, *, to_map: Callable[[Tensor], Tensor]) -> Tensor:
    """Weigh channels by the gradient of each label's score (Grad-CAM, ICCV 2017), without the ReLU.

    The gradients are summed over locations, where the paper takes their mean, so that for global average pooling and
    a linear layer the map is :func:`linear_cam` itself.

    The result can be differentiated where gradients are on. Where they are off (a teacher, validation) it is still
    computed, and carries no gradient.

    Args:
        scores: Turns features into logits [B, K].
        features: What ``scores`` takes, in any layout.
        to_map: Lays such features out as [B, C, H, W].

    Returns:
        Maps [B, K, H, W].
    """
    differentiable = torch.is_grad_enabled()
    # inference_mode(False): Lightning validates in inference mode, where no gradient can be had.
    with torch.inference_mode(False), torch.enable_grad():
        if not differentiable:
            features = features.detach().clone().requires_grad_()
        elif not features.requires_grad:
            features = features.detach().requires_grad_()
        logits_BK = scores(features)
        batch, num_labels = logits_BK.shape
        chosen_KBK = torch.eye(num_labels, dtype=logits_BK.dtype, device=logits_BK.device)[:, None].expand(
            -1, batch, -1
        )
        (gradient_K,) = torch.autograd.grad(
            logits_BK, features, chosen_KBK, is_grads_batched=True, create_graph=differentiable
        )
        weights_KBC = torch.vmap(to_map)(gradient_K).sum((3, 4))
        cams_BKHW = torch.einsum("kbc,bchw->bkhw", weights_KBC, to_map(features))
    return cams_BKHW if differentiable else cams_BKHW.detach()

"""Class activation maps as pure functions."""

# B batch, K labels, C channels, H W map

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.multilabel.networks.output import NetOutput


def linear_cam(features_BCHW: Tensor, weight_KC: Tensor) -> Tensor:
    """Apply a classifier's weight, without its bias, at each location (Zhou et al., CVPR 2016).

    Returns:
        Maps [B, K, H, W]. After global average pooling and a linear layer, their mean plus bias is the logits.
    """
    return functional.conv2d(features_BCHW, weight_KC[:, :, None, None])


def grad_cam(head: Callable[[Tensor], NetOutput], features: Tensor, *, to_map: Callable[[Tensor], Tensor]) -> NetOutput:
    """Run a head once, and weigh channels by each label's gradient (Grad-CAM, ICCV 2017), without the ReLU.

    The gradients are summed over locations, where the paper takes their mean, so that for global average pooling and
    a linear layer the map is :func:`linear_cam` itself.

    The maps can be differentiated where gradients are on. Where they are off (a teacher, validation) they are computed
    all the same, and carry no gradient.

    Args:
        head: Turns features into an output without maps.
        features: What ``head`` takes, in any layout.
        to_map: Lays such features out as [B, C, H, W].

    Returns:
        The head's output with maps [B, K, H, W].
    """
    differentiable = torch.is_grad_enabled()
    # inference_mode(False): Lightning validates in inference mode, where no gradient can be had.
    with torch.inference_mode(False), torch.enable_grad():
        if not differentiable:
            features = features.detach().clone().requires_grad_()
        elif not features.requires_grad:
            features = features.detach().requires_grad_()
        output = head(features)
        logits_BK = output.logits_BK
        batch, num_labels = logits_BK.shape
        one_KBK = torch.eye(num_labels, dtype=logits_BK.dtype, device=logits_BK.device)[:, None].expand(-1, batch, -1)
        (gradient_K,) = torch.autograd.grad(
            logits_BK, features, one_KBK, is_grads_batched=True, retain_graph=True, create_graph=differentiable
        )
        weights_KBC = torch.vmap(to_map)(gradient_K).sum((3, 4))
        output.cams_BKHW = torch.einsum("kbc,bchw->bkhw", weights_KBC, to_map(features))
    return output if differentiable else _detached(output)


def _detached(output: NetOutput) -> NetOutput:
    embeddings = output.label_embeddings_BKD
    return NetOutput(
        logits_BK=output.logits_BK.detach(),
        cams_BKHW=None if output.cams_BKHW is None else output.cams_BKHW.detach(),
        stages=tuple(stage.detach() for stage in output.stages),
        embedding_BC=None if output.embedding_BC is None else output.embedding_BC.detach(),
        label_embeddings_BKD=None if embeddings is None else embeddings.detach(),
    )

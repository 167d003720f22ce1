"""Class activation maps as pure functions."""

# B batch, K labels, L chosen labels, C channels, H W map

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tutelage.multilabel.networks.output import ChosenMaps, NetOutput


def linear_cam(features_BCHW: Tensor, weight_KC: Tensor) -> Tensor:
    """Apply a classifier's weight, without its bias, at each location (Zhou et al., CVPR 2016).

    Returns:
        Maps [B, K, H, W]. After global average pooling and a linear layer, their mean plus bias is the logits.
    """
    return functional.conv2d(features_BCHW, weight_KC[:, :, None, None])


def chosen_linear_cam(features_BCHW: Tensor, weight_KC: Tensor, labels_BL: Tensor) -> Tensor:
    """Make the maps [B, L, H, W] of :func:`linear_cam` for some labels of each image, and no others."""
    return torch.einsum("bchw,blc->blhw", features_BCHW, weight_KC[labels_BL])


def with_grad_cams(
    head: Callable[[Tensor], NetOutput], features: Tensor, *, to_map: Callable[[Tensor], Tensor]
) -> tuple[NetOutput, ChosenMaps]:
    """Run a head once, so that Grad-CAMs (ICCV 2017) of any labels can be made of it, without the ReLU.

    Channels are weighed by a label's gradient, summed over locations, where the paper takes the mean, so that for
    global average pooling and a linear layer the map is :func:`linear_cam` itself.

    The maps can be differentiated where gradients are on. Where they are off (a teacher, validation) they are computed
    all the same, and carry no gradient.

    Args:
        head: Turns features into an output without maps.
        features: What ``head`` takes, in any layout.
        to_map: Lays such features out as [B, C, H, W].

    Returns:
        The head's output, and a function from labels [B, L] to maps [B, L, H, W].
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

    def maps(labels_BL: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            one_LBK = functional.one_hot(labels_BL.T, logits_BK.shape[1]).to(logits_BK.dtype)
            (gradient_L,) = torch.autograd.grad(
                logits_BK, features, one_LBK, is_grads_batched=True, retain_graph=True, create_graph=differentiable
            )
            weights_LBC = torch.vmap(to_map)(gradient_L).sum((3, 4))
            maps_BLHW = torch.einsum("lbc,bchw->blhw", weights_LBC, to_map(features))
        return maps_BLHW if differentiable else maps_BLHW.detach()

    return (output if differentiable else output.detached()), maps


def all_labels(logits_BK: Tensor) -> Tensor:
    """Return every label of every image, as :meth:`NetOutput.chosen_cams` takes them."""
    return torch.arange(logits_BK.shape[1], device=logits_BK.device).expand(logits_BK.shape)


def area_pooled(maps: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Average maps over the cells of a grid, each place weighted by the area that it shares with the cell.

    The mean over the result is the mean over the maps at any two sizes. `adaptive_avg_pool2d` is the same only where
    the sizes divide: elsewhere its cells overlap, and the mean moves.

    Args:
        maps: [..., H, W].
        size: Height and width of the grid.

    Returns:
        [..., *size].
    """
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    if height % size[0] == 0 and width % size[1] == 0:
        return functional.avg_pool2d(maps, (height // size[0], width // size[1]))
    return torch.einsum("ih,...hw,jw->...ij", _shares(height, size[0], maps), maps, _shares(width, size[1], maps))


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    # [cells, length]: the part of each cell that each place covers. Made on the device: a copy to it would wait.
    scale = length / cells
    start = torch.arange(cells, device=like.device, dtype=like.dtype)[:, None] * scale
    place = torch.arange(length, device=like.device, dtype=like.dtype)
    overlap = torch.minimum(place + 1, start + scale) - torch.maximum(place, start)
    return overlap.clamp(min=0) / scale

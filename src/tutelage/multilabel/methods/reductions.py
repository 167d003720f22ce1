"""What of a batch counts, and means over it that are the same on one process and on many."""

# B batch, K labels

from torch import Tensor

from tutelage.core.distributed import global_mean
from tutelage.multilabel.data.source import Batch


def real_images(batch: Batch) -> Tensor:
    """Return which rows [B] hold an image; the others are padding or skipped images."""
    return batch.index_B >= 0


def known_labels(batch: Batch) -> Tensor:
    """Return which (image, label) pairs [B, K] are known: neither ignored nor in a row without an image."""
    return (batch.target_BK >= 0) & real_images(batch)[:, None]


def image_mean(loss_B: Tensor, batch: Batch) -> Tensor:
    """Mean over the images of all processes' batches, rows without an image left out."""
    return global_mean(loss_B, real_images(batch))


def weighted_label_sum(loss_BK: Tensor, weight_BK: Tensor, batch: Batch) -> Tensor:
    """Weighted sum over the labels of each image, and mean over the images of all processes' batches."""
    # masked_fill, not a product alone: what does not count may be infinite.
    return image_mean((loss_BK.masked_fill(weight_BK == 0, 0) * weight_BK).sum(1), batch)

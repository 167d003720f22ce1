"""Batch norm over the batches of all processes, and back again."""

from lightning.pytorch.plugins import LayerSync
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(LayerSync):
    """Converts batch norms with timm's function, which keeps the activations that its layers hold.

    torch's own turns timm's BatchNormAct2d, a norm and an activation in one, into a norm alone (timm issue 1254), and
    Lightning's plugin does not bring the activation back. Here the first modules are kept and put back, so what is
    tested after training is the network that other programs build.
    """

    def __init__(self) -> None:
        self.replaced: list[tuple[nn.Module, str, nn.Module]] = []

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace each batch norm below ``model``; parameters, statistics and hooks stay the same objects."""
        from timm.layers import convert_sync_batchnorm

        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                    synced = convert_sync_batchnorm(child)
                    synced._forward_hooks, synced._forward_pre_hooks = child._forward_hooks, child._forward_pre_hooks
                    setattr(parent, name, synced)
                    self.replaced.append((parent, name, child))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the first modules back, with what the synchronised ones learned."""
        for parent, name, first in self.replaced:
            synced = parent.get_submodule(name)
            # Moving a module to a device makes new buffers.
            first._parameters, first._buffers = synced._parameters, synced._buffers
            first.train(synced.training)
            setattr(parent, name, first)
        self.replaced.clear()
        return model

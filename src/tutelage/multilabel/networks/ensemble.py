"""Several teachers as one: their logits and maps averaged, or weighed per label."""

# B batch, T networks, K labels, L chosen labels, H W map

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.multilabel.networks.cam import area_pooled
from tutelage.multilabel.networks.network import Network, NetworkShape
from tutelage.multilabel.networks.output import Field, NetOutput

# Features of unlike networks have no mean.
READABLE: frozenset[Field] = frozenset({"logits_BK", "cams_BKHW", "label_cams"})


class Ensemble(nn.Module):
    """The weighted mean of what networks say of each label."""

    weights_TK: Tensor

    def __init__(self, networks: Sequence[Network], weights_TK: Tensor) -> None:
        """Put networks together.

        Args:
            networks: Of the same labels.
            weights_TK: Not negative; for each label they are scaled to a sum of 1.
        """
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.register_buffer("weights_TK", weights_TK / weights_TK.sum(0), persistent=False)

    @property
    def shape(self) -> NetworkShape:
        """What the first of them shows."""
        first = self.networks[0]
        assert isinstance(first, Network)
        return first.shape

    def forward(self, images_BCHW: Tensor, *, reads: frozenset[Field] = frozenset()) -> NetOutput:
        """Look at a batch; see :meth:`Network.forward`. Maps are pooled to the coarsest grid among the networks."""
        assert reads <= READABLE, "checked before training"
        outputs: list[NetOutput] = [network(images_BCHW, reads=reads) for network in self.networks]
        weights_TK = self.weights_TK
        output = NetOutput(torch.einsum("tk,tbk->bk", weights_TK, torch.stack([each.logits_BK for each in outputs])))
        if "cams_BKHW" in reads:
            cams_TBKHW = _on_one_grid([each.cams_BKHW for each in outputs if each.cams_BKHW is not None])
            output.cams_BKHW = torch.einsum("tk,tbkhw->bkhw", weights_TK, cams_TBKHW)
        elif "label_cams" in reads:

            def maps(labels_BL: Tensor) -> Tensor:
                maps_TBLHW = _on_one_grid([each.chosen_cams(labels_BL) for each in outputs])
                return torch.einsum("tbl,tblhw->blhw", weights_TK[:, labels_BL], maps_TBLHW)

            output.label_cams = maps
        return output


def _on_one_grid(maps: Sequence[Tensor]) -> Tensor:
    size = (min(each.shape[2] for each in maps), min(each.shape[3] for each in maps))
    return torch.stack([area_pooled(each, size=size) for each in maps])  # whose mean, the logits', stays

"""What a network shows of one batch, and nothing of how it is made."""

# B batch, K labels, L chosen labels, C channels, D embedding, H W map

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

Field = Literal[
    "logits_BK",
    "cams_BKHW",
    "label_cams",
    "grad_cams",
    "stages",
    "features",
    "feature_map_BCHW",
    "embedding_BC",
    "label_embeddings_BKD",
]
ChosenMaps = Callable[[Tensor], Tensor]  # indices of labels [B, L] → their maps [B, L, H, W]


@dataclass(slots=True)
class NetOutput:
    """What a network shows of one batch. A field that nobody reads is not computed.

    Attributes:
        logits_BK: Always there.
        cams_BKHW: The head's maps of all labels. Linear head after global average pooling: their mean over H W, plus
            the bias, is the logits. To read the maps of some labels only, read ``label_cams`` and call
            :meth:`chosen_cams`: with thousands of labels, all maps do not fit into memory.
        label_cams: Makes the same maps of chosen labels; see :meth:`chosen_cams`.
        grad_cams: Makes Grad-CAMs (ICCV 2017, without the ReLU) of chosen labels, whatever the head. Those of a
            student can be differentiated.
        stages: Feature maps, shallow to deep, each [B, C_i, H_i, W_i].
        features: Outputs of the modules that :meth:`Network.watch` names, in the module's own layout; and what the head
            shows of its own.
        feature_map_BCHW: The last feature map, before pooling, without class tokens.
        embedding_BC: Pooled features: what a linear classifier sees.
        label_embeddings_BKD: An embedding of each label, from heads that have them.
    """

    logits_BK: Tensor
    cams_BKHW: Tensor | None = None
    label_cams: ChosenMaps | None = None
    grad_cams: ChosenMaps | None = None
    stages: tuple[Tensor, ...] = ()
    features: dict[str, Tensor] = field(default_factory=dict)
    feature_map_BCHW: Tensor | None = None
    embedding_BC: Tensor | None = None
    label_embeddings_BKD: Tensor | None = None

    def chosen_cams(self, labels_BL: Tensor) -> Tensor:
        """Return the maps [B, L, H, W] of the labels that were chosen for each image.

        Args:
            labels_BL: int64 indices of labels. Where images have different numbers of labels, fill up with any label
                and give its maps no weight in the loss.
        """
        if self.cams_BKHW is not None:
            return self.cams_BKHW.gather(1, labels_BL[:, :, None, None].expand(-1, -1, *self.cams_BKHW.shape[2:]))
        assert self.label_cams is not None, "the method reads neither cams_BKHW nor label_cams"
        return self.label_cams(labels_BL)

    def tensors(self) -> list[Tensor]:
        """Return all that is filled and not made on demand."""
        single = (self.logits_BK, self.cams_BKHW, self.feature_map_BCHW, self.embedding_BC, self.label_embeddings_BKD)
        return [*(value for value in single if value is not None), *self.stages, *self.features.values()]

    def detached(self) -> "NetOutput":
        """Return the same output, through which no gradient flows."""
        return NetOutput(
            logits_BK=self.logits_BK.detach(),
            cams_BKHW=_detached(self.cams_BKHW),
            label_cams=_detached_maps(self.label_cams),
            grad_cams=_detached_maps(self.grad_cams),
            stages=tuple(stage.detach() for stage in self.stages),
            features={name: value.detach() for name, value in self.features.items()},
            feature_map_BCHW=_detached(self.feature_map_BCHW),
            embedding_BC=_detached(self.embedding_BC),
            label_embeddings_BKD=_detached(self.label_embeddings_BKD),
        )


def _detached(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()


def _detached_maps(make: ChosenMaps | None) -> ChosenMaps | None:
    return None if make is None else lambda labels_BL: make(labels_BL).detach()

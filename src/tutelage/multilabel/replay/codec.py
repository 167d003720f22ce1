"""How numbers are kept: in half precision, in full, or maps in 8 bits with a scale each."""

# U units, M maps of a unit, P places of a map

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Dtype = Literal["float16", "float32", "uint8"]

_SCALE_BYTES = 8  # least value and step of a map, each in full precision


@dataclass(frozen=True, slots=True)
class Codec:
    """Turns units of one shape into bytes and back.

    Attributes:
        shape: Of a unit. Of a map or several, H and W are last.
        dtype: ``uint8`` is for maps: 256 values from a map's least to its greatest.
    """

    shape: tuple[int, ...]
    dtype: Dtype

    @property
    def unit_bytes(self) -> int:
        if self.dtype == "uint8":
            return self._num_maps * (_SCALE_BYTES + self._num_places)
        return math.prod(self.shape) * _torch_dtype(self.dtype).itemsize

    def encode(self, values: Tensor) -> Tensor:
        """Return uint8 [U, unit_bytes] of values [U, *shape]."""
        if not self.unit_bytes:  # the logits of a tower without a classifier
            return torch.empty(len(values), 0, dtype=torch.uint8, device=values.device)
        if self.dtype != "uint8":
            kept = values.to(_torch_dtype(self.dtype)).reshape(len(values), math.prod(self.shape))
            return kept.contiguous().view(torch.uint8)
        maps_UMP = values.float().reshape(len(values), self._num_maps, self._num_places)
        least_UM1 = maps_UMP.amin(2, keepdim=True)
        step_UM1 = (maps_UMP.amax(2, keepdim=True) - least_UM1) / 255
        codes_UMP = ((maps_UMP - least_UM1) / torch.where(step_UM1 > 0, step_UM1, 1)).round().clamp(0, 255)
        scales = torch.cat([least_UM1, step_UM1], 2).view(torch.uint8)
        return torch.cat([scales, codes_UMP.to(torch.uint8)], 2).flatten(1)

    def decode(self, kept: Tensor) -> Tensor:
        """Return float32 [U, *shape] of what :meth:`encode` made."""
        if not self.unit_bytes:
            return torch.empty(len(kept), *self.shape, device=kept.device)
        if self.dtype != "uint8":
            return kept.view(_torch_dtype(self.dtype)).float().reshape(len(kept), *self.shape)
        parts = kept.reshape(len(kept), self._num_maps, _SCALE_BYTES + self._num_places)
        scales = parts[:, :, :_SCALE_BYTES].contiguous().view(torch.float32)
        maps_UMP = scales[:, :, :1] + scales[:, :, 1:] * parts[:, :, _SCALE_BYTES:]
        return maps_UMP.reshape(len(kept), *self.shape)

    def bound(self, values: Tensor) -> Tensor:
        """Return how far each of some values [U, *shape] may be from what is decoded, rounding of float32 aside."""
        if self.dtype == "float32":
            return torch.zeros_like(values)
        if self.dtype == "float16":
            return values.abs() * 2**-11 + 2**-25
        maps_UMP = values.reshape(len(values), self._num_maps, self._num_places)
        half_step_UM1 = (maps_UMP.amax(2, keepdim=True) - maps_UMP.amin(2, keepdim=True)) / 510
        return half_step_UM1.expand_as(maps_UMP).reshape(values.shape)

    @property
    def _num_places(self) -> int:
        return math.prod(self.shape[-2:])

    @property
    def _num_maps(self) -> int:
        return math.prod(self.shape[:-2])


def codec(shape: Sequence[int], *, dtype: Dtype, is_map: bool) -> Codec:
    """Return the codec of a field: what is no map has nothing to share a scale, and takes float16 for uint8."""
    return Codec(tuple(shape), "float16" if dtype == "uint8" and not is_map else dtype)


def _torch_dtype(dtype: Dtype) -> torch.dtype:
    return torch.float32 if dtype == "float32" else torch.float16

"""From a decoded picture to what a network is given: uint8, square, at the data's resolution.

No normalisation happens here: each network applies its own. Every random choice is drawn from the generator of
(augment seed, view, sample id), so it is the same in any worker, on any rank, after a resume, and in every run of a
sweep, whatever its seed.
"""

# H W pixels of the decoded picture, R resolution

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from tutelage.core.errors import ConfigError
from tutelage.core.randomness import generator

Picture = Tensor | Image.Image  # the functional operations take both


def resize_square(image_3HW: Tensor, *, resolution: int) -> Tensor:
    """Resize to a square whatever the aspect, antialiased: nothing is cut off, so no label is lost.

    This is the whole of the evaluation transform, and the field's habit for multi-label data (ASL, L2D).
    """
    if image_3HW.shape[-2:] == (resolution, resolution):
        return image_3HW
    square: Tensor = F.resize(image_3HW, [resolution, resolution], antialias=True)
    return square


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """What happens to a training picture, in this order; what is not named does not happen.

    Attributes:
        crop_scale: Least and greatest share of the area that a random resized crop keeps, at an aspect of 3:4 to
            4:3; None resizes the whole picture to a square.
        flip: Mirror every second picture.
        color_jitter: Greatest change of brightness, contrast, saturation (shares) and hue (turns).
        cutout: Side of the rectangle that is painted over in a random colour, as a share of the picture's side.
        rand_augment_ops: How many operations of RandAugment a picture meets, one after the other.
        rand_augment_magnitude: How strong they are, 0 to 30.
        seed: Of the random choices. The run's seed has no part in them: runs that are compared see the same views.
    """

    crop_scale: tuple[float, float] | None = None
    flip: bool = False
    color_jitter: tuple[float, float, float, float] | None = None
    cutout: float = 0.0
    rand_augment_ops: int = 0
    rand_augment_magnitude: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ConfigError(
                "augment.crop_scale", f"{self.crop_scale}", "give two shares of the area, such as [0.5, 1]"
            )
        if not 0 <= self.cutout < 1:
            raise ConfigError("augment.cutout", f"{self.cutout}", "give a share of the side, from 0 up to below 1")
        if not 0 <= self.rand_augment_magnitude <= 30:
            raise ConfigError("augment.rand_augment_magnitude", f"{self.rand_augment_magnitude}", "give 0 to 30")

    @property
    def keeps_whole(self) -> bool:
        """Whether the picture is first resized to a square, before anything random, so that a cache may keep it so."""
        return self.crop_scale is None

    @property
    def is_random(self) -> bool:
        """Whether two views of a picture can differ."""
        return (
            self.crop_scale is not None
            or self.flip
            or self.color_jitter is not None
            or self.cutout > 0
            or self.rand_augment_ops > 0
        )

    def __call__(self, image_3HW: Tensor, *, resolution: int, view: int, sample_id: str) -> Tensor:
        """Make one view of a picture.

        Args:
            image_3HW: uint8.
            resolution: Side R of the result.
            view: Which view of the sample this is, from 0.
            sample_id: The sample's name in its split.

        Returns:
            uint8 [3, R, R].
        """
        random = generator(self.seed, view, sample_id)
        image = (
            resize_square(image_3HW, resolution=resolution)
            if self.crop_scale is None
            else _random_resized_crop(image_3HW, random, resolution=resolution, scale=self.crop_scale)
        )
        if self.flip and random.random() < 0.5:
            image = F.horizontal_flip(image)
        if self.color_jitter is not None:
            image = _on_pil(image, lambda picture: _jitter(picture, random, self.color_jitter))
        if self.cutout:
            image = _cut_out(image, random, share=self.cutout)
        if self.rand_augment_ops:
            image = _on_pil(image, lambda picture: self._rand_augment(picture, random))
        return image

    def _rand_augment(self, picture: Picture, random: np.random.Generator) -> Picture:
        """RandAugment (arXiv 1909.13719) with torchvision's table of operations and magnitudes."""
        for _ in range(self.rand_augment_ops):
            operation = _RAND_AUGMENT[random.integers(len(_RAND_AUGMENT))]
            sign = 1 if random.random() < 0.5 else -1
            picture = operation(picture, self.rand_augment_magnitude / 30, sign)
        return picture


def _random_resized_crop(
    image_3HW: Tensor, random: np.random.Generator, *, resolution: int, scale: tuple[float, float]
) -> Tensor:
    """Torchvision's RandomResizedCrop: ten tries to fit a crop, else the largest central one."""
    height, width = image_3HW.shape[-2:]
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
            break
    else:
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        top, left = (height - h) // 2, (width - w) // 2
    crop: Tensor = F.resized_crop(image_3HW, top, left, h, w, [resolution, resolution], antialias=True)
    return crop


def _cut_out(image_3RR: Tensor, random: np.random.Generator, *, share: float) -> Tensor:
    """Cutout with a random colour; the rectangle's centre is uniform, so it may hang over the edge (as in ASL)."""
    size = image_3RR.shape[-1]
    half = round(share * size / 2)
    y, x = (int(centre) for centre in random.integers(size, size=2))
    colour_3 = torch.from_numpy(random.integers(256, size=3).astype(np.uint8)).to(image_3RR.device)
    image_3RR = image_3RR.clone()
    image_3RR[:, max(y - half, 0) : y + half, max(x - half, 0) : x + half] = colour_3[:, None, None]
    return image_3RR


def _jitter(
    picture: Picture, random: np.random.Generator, strength: tuple[float, float, float, float] | None
) -> Picture:
    """Brightness, contrast, saturation and hue, in random order (torchvision's ColorJitter)."""
    assert strength is not None
    *factors, turn = (float(random.uniform(-s, s)) for s in strength)
    changes: list[Callable[[Picture], Picture]] = [
        lambda p: F.adjust_brightness(p, max(1 + factors[0], 0)),
        lambda p: F.adjust_contrast(p, max(1 + factors[1], 0)),
        lambda p: F.adjust_saturation(p, max(1 + factors[2], 0)),
        lambda p: F.adjust_hue(p, turn),
    ]
    for which in random.permutation(4):
        # Hue goes through HSV and back, which costs far more than the other three.
        if strength[which]:
            picture = changes[which](picture)
    return picture


def _on_pil(image_3RR: Tensor, change: Callable[[Picture], Picture]) -> Tensor:
    """Apply operations to a PIL image where the picture is on the CPU: there PIL is 2 to 4 times as fast.

    On another device they run on the tensor; the two differ by rounding.
    """
    if image_3RR.device.type != "cpu":
        changed = change(image_3RR)
        assert isinstance(changed, Tensor)
        return changed
    picture = change(Image.fromarray(image_3RR.permute(1, 2, 0).contiguous().numpy()))
    tensor: Tensor = F.pil_to_tensor(picture)
    return tensor


def _affine(
    picture: Picture, *, angle: float = 0, x: int = 0, y: int = 0, shear: tuple[float, float] = (0, 0)
) -> Picture:
    centre = None if angle else [0, 0]  # shears fix the corner, as in torchvision's RandAugment
    moved: Picture = F.affine(
        picture, angle=angle, translate=[x, y], scale=1.0, shear=[math.degrees(s) for s in shear], center=centre
    )
    return moved


def _side(picture: Picture) -> int:
    return int(F.get_size(picture)[0])


# Magnitude m is a share, 0 to 1, of torchvision's greatest; s is the sign.
_RAND_AUGMENT: tuple[Callable[[Picture, float, int], Picture], ...] = (
    lambda p, m, s: p,
    lambda p, m, s: _affine(p, shear=(math.atan(0.3 * m * s), 0.0)),
    lambda p, m, s: _affine(p, shear=(0.0, math.atan(0.3 * m * s))),
    lambda p, m, s: _affine(p, x=int(150 / 331 * _side(p) * m) * s),
    lambda p, m, s: _affine(p, y=int(150 / 331 * _side(p) * m) * s),
    lambda p, m, s: F.rotate(p, 30.0 * m * s),
    lambda p, m, s: F.adjust_brightness(p, 1 + 0.9 * m * s),
    lambda p, m, s: F.adjust_saturation(p, 1 + 0.9 * m * s),
    lambda p, m, s: F.adjust_contrast(p, 1 + 0.9 * m * s),
    lambda p, m, s: F.adjust_sharpness(p, 1 + 0.9 * m * s),
    lambda p, m, s: F.posterize(p, 8 - round(4 * m)),
    lambda p, m, s: F.solarize(p, 255 * (1 - m)),
    lambda p, m, s: F.autocontrast(p),
    lambda p, m, s: F.equalize(p),
)

"""From a picture's file to pixels: uint8 RGB, upright, or a `BadImage` that says why not.

JPEG, PNG, WebP and GIF go through torchvision (libjpeg-turbo, libpng): the fastest of the libraries at hand by
``benchmarks/loader.py``. What it does not read (TIFF, BMP) goes through PIL.
"""

# H W pixels

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

MAX_PIXELS = 89_478_485  # PIL's bound: 256 MB as RGB; beyond it a small file is taken for a bomb
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # such a picture is refused here, by name


class BadImage(Exception):
    """A picture that cannot be read; the message says why, the caller knows the file's name."""


def read_image(path: Path) -> Tensor:
    """Read one picture.

    CMYK becomes RGB, grey gets three equal channels, alpha is dropped, 16 bits keep their upper 8, and the EXIF
    orientation is applied.

    Returns:
        uint8 [3, H, W].

    Raises:
        BadImage: No such file, not a picture, truncated, or too large to be one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadImage(error.strerror or "cannot be opened") from None
    if not content:
        raise BadImage("the file is empty")
    width, height = _size(content)
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width} × {height} pixels: beyond {MAX_PIXELS:,} it is taken for a decompression bomb")
    try:
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        image: Tensor = decode_image(data, ImageReadMode.RGB, apply_exif_orientation=True)
    except RuntimeError:
        image = _read_with_pil(content)
    if image.dtype == torch.uint16:
        image = (image.to(torch.int32) >> 8).to(torch.uint8)
    return image[0] if image.ndim == 4 else image  # the first frame of an animation


def _read_with_pil(content: bytes) -> Tensor:
    try:
        picture: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    except _BROKEN as error:
        raise BadImage(str(error)) from None
    if picture.mode == "F":
        raise BadImage("its pixels are floating-point numbers")
    if picture.mode.startswith("I"):  # PIL would clip 16 bits at 255
        picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


_BROKEN = (OSError, ValueError, SyntaxError)  # what PIL raises on broken files, by format


def _size(content: bytes) -> tuple[int, int]:
    """Read width and height from the header, without decoding."""
    try:
        return Image.open(io.BytesIO(content)).size
    except UnidentifiedImageError:
        raise BadImage("not a picture that can be read") from None
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise BadImage(str(error)) from None

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.multilabel.data.images import MAX_PIXELS, BadImage, read_image

# Blocks of 16 by 16, each of one colour: JPEG keeps them almost exactly.
BLOCKS = np.kron(np.random.default_rng(0).integers(0, 256, (3, 5, 3)), np.ones((16, 16, 1))).astype(np.uint8)
PICTURE = Image.fromarray(BLOCKS)
GREY = np.asarray(PICTURE.convert("L"))


def save(path: Path, picture: Image.Image, **options) -> Path:
    picture.save(path, **options)
    return path


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.dtype == torch.uint8
    return image.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
def test_lossless_formats(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    assert np.array_equal(pixels(save(tmp_path / name, PICTURE, **options)), BLOCKS)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 50}])
def test_jpeg_is_decoded_as_pil_does(tmp_path: Path, options: dict) -> None:
    path = save(tmp_path / "a.jpg", PICTURE, **options)
    assert np.array_equal(pixels(path), np.asarray(Image.open(path)))


def test_cmyk(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", PICTURE.convert("CMYK"))
    assert np.abs(pixels(path) - np.asarray(Image.open(path).convert("RGB"))).max() <= 1


def test_grey_palette_and_transparency(tmp_path: Path) -> None:
    grey = pixels(save(tmp_path / "grey.png", PICTURE.convert("L")))
    assert np.array_equal(grey, np.repeat(GREY[:, :, None], 3, axis=2))
    palette = PICTURE.convert("P")
    assert np.array_equal(pixels(save(tmp_path / "palette.png", palette)), np.asarray(palette.convert("RGB")))
    clear = PICTURE.copy()
    clear.putalpha(7)
    assert np.array_equal(pixels(save(tmp_path / "alpha.png", clear)), BLOCKS)


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, Image.fromarray(GREY.astype(np.uint16) * 256 + 255))
    assert np.array_equal(pixels(path), np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_exif_orientation_is_applied(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by 90° clockwise
    path = save(tmp_path / name, PICTURE, exif=exif)
    assert read_image(path).shape == (3, 80, 48)
    assert np.array_equal(pixels(path), np.rot90(np.asarray(Image.open(path)), -1))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    other = Image.fromarray(255 - BLOCKS)
    path = save(tmp_path / "a.gif", PICTURE, save_all=True, append_images=[other])
    with Image.open(path) as first:
        assert np.array_equal(pixels(path), np.asarray(first.convert("RGB")))


@pytest.mark.parametrize("cut", [-2, -40, 300, 30])
def test_truncated_jpeg(tmp_path: Path, cut: int) -> None:
    path = save(tmp_path / "a.jpg", PICTURE)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadImage):
        read_image(path)


def test_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file"):
        read_image(tmp_path / "nowhere.jpg")
    page = tmp_path / "page.jpg"
    page.write_bytes(b"")
    with pytest.raises(BadImage, match="empty"):
        read_image(page)
    page.write_text("<html>404 Not Found</html>")
    with pytest.raises(BadImage, match="not a picture"):
        read_image(page)
    with pytest.raises(BadImage, match="floating-point"):
        read_image(save(tmp_path / "f.tiff", Image.fromarray(GREY.astype(np.float32))))
    with pytest.raises(BadImage):
        read_image(tmp_path)


def test_decompression_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    png += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "bomb.png").write_bytes(png)
    jpeg = io.BytesIO()
    PICTURE.save(jpeg, "JPEG")
    content = bytearray(jpeg.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    (tmp_path / "bomb.jpg").write_bytes(content)
    gif = io.BytesIO()
    PICTURE.save(gif, "GIF")
    content = bytearray(gif.getvalue())
    content[6:10] = struct.pack("<HH", 65000, 65000)
    (tmp_path / "bomb.gif").write_bytes(content)
    for name in ("bomb.png", "bomb.jpg", "bomb.gif"):
        with pytest.raises(BadImage, match="bomb"):
            read_image(tmp_path / name)

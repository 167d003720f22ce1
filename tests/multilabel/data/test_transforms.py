from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from tutelage.core.errors import ConfigError
from tutelage.multilabel.data import transforms
from tutelage.multilabel.data.transforms import Augment, resize_square

EVERYTHING = Augment(
    crop_scale=(0.3, 1.0), flip=True, color_jitter=(0.4, 0.4, 0.4, 0.1), cutout=0.5, rand_augment_ops=2
)


def picture(height: int = 60, width: int = 90, seed: int = 0) -> torch.Tensor:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return F.pil_to_tensor(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC))


def view(augment: Augment, *, view: int = 0, sample_id: str = "a", resolution: int = 32) -> torch.Tensor:
    return augment(picture(), resolution=resolution, view=view, sample_id=sample_id)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(flip=True),
        Augment(crop_scale=(0.2, 1.0)),
        Augment(color_jitter=(0.4, 0.4, 0.4, 0.1)),
        Augment(cutout=0.5),
        Augment(rand_augment_ops=2),
        EVERYTHING,
    ],
)
def test_a_view_is_a_function_of_seed_view_and_sample(augment: Augment) -> None:
    first = view(augment)
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8
    torch.manual_seed(7)
    assert torch.equal(view(augment), first)
    others = [view(augment, view=number) for number in range(1, 9)]
    others += [view(augment, sample_id="b"), view(replace(augment, seed=2))]
    assert any(not torch.equal(other, first) for other in others) == augment.is_random
    assert augment.is_random == (augment != Augment())


def test_resizing_is_pils_antialiased_bilinear() -> None:
    image = picture()
    expected = F.to_pil_image(image).resize((32, 32), Image.Resampling.BILINEAR)
    difference = resize_square(image, resolution=32).int() - F.pil_to_tensor(expected).int()
    assert difference.abs().max() <= 1
    square = picture(32, 32)
    assert resize_square(square, resolution=32).data_ptr() == square.data_ptr()  # nothing to do, so nothing is copied


def test_flip_mirrors_every_second_picture() -> None:
    plain, mirrored = view(Augment()), view(Augment()).flip(-1)
    views = [view(Augment(flip=True), view=i) for i in range(200)]
    count = sum(torch.equal(v, mirrored) for v in views)
    assert all(torch.equal(v, plain) or torch.equal(v, mirrored) for v in views)
    assert 70 < count < 130


def test_cutout_paints_one_rectangle_in_one_colour() -> None:
    plain = view(Augment(), resolution=40)
    for index in range(20):
        cut = view(Augment(cutout=0.5), view=index, resolution=40)
        rows, columns = torch.nonzero((cut != plain).any(dim=0), as_tuple=True)
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        assert bottom - top < 20 and right - left < 20  # half of 40, or less over the edge
        assert max(bottom - top, right - left) >= 9  # at least the half that is inside
        painted = cut[:, top : bottom + 1, left : right + 1]
        assert (painted == painted[:, :1, :1]).all()


def test_random_resized_crop_is_the_crop_it_says() -> None:
    """A crop of a ramp shows where it was taken: its extent follows scale and aspect."""
    ramp = torch.arange(200).repeat(100, 1).to(torch.uint8).expand(3, 100, 200)
    shares = []
    for index in range(100):
        crop = Augment(crop_scale=(0.25, 0.5))(ramp, resolution=20, view=index, sample_id="x")
        first, last = int(crop[0, 0, 0]), int(crop[0, 0, -1])
        assert 0 <= first < last <= 199
        shares.append((last - first) / 200 * 20 / 19)
    # Area a at aspect r of a 2:1 picture is sqrt(a·r/2) wide: between 0.306 and 0.577.
    assert min(shares) > 0.27
    assert max(shares) < 0.61
    assert np.std(shares) > 0.03


def test_crop_of_an_extreme_picture_falls_back_to_its_centre() -> None:
    tall = torch.arange(400).div(2).to(torch.uint8).reshape(1, 400, 1).expand(3, 400, 10)
    crop = Augment(crop_scale=(0.9, 1.0))(tall, resolution=8, view=0, sample_id="x")
    assert 90 < crop.float().mean() < 110


@pytest.mark.parametrize("which", range(14))
def test_each_operation_of_rand_augment_is_torchvisions(which: int) -> None:
    """Against torchvision's RandAugment with its own dice loaded."""
    from torchvision.transforms.v2 import InterpolationMode, RandAugment

    name = list(RandAugment._AUGMENTATION_SPACE)[which]
    theirs = RandAugment()
    magnitudes, signed = RandAugment._AUGMENTATION_SPACE[name]
    steps = magnitudes(31, 32, 32)
    image = F.to_pil_image(view(Augment()))
    for sign in (1, -1) if signed else (1,):
        magnitude = 0.0 if steps is None else float(steps[9]) * sign
        expected = theirs._apply_image_or_video_transform(
            image, name, magnitude, interpolation=InterpolationMode.NEAREST, fill=theirs._fill
        )
        ours = transforms._RAND_AUGMENT[which](image, 9 / 30, sign)
        assert np.array_equal(np.asarray(ours), np.asarray(expected)), name


def test_no_operation_of_rand_augment_is_left_out() -> None:
    plain = view(Augment())
    drawn = {tuple(view(Augment(rand_augment_ops=1), view=i).flatten()[::97].tolist()) for i in range(300)}
    assert len(drawn) > 14  # 14 operations, most of them with two signs
    strong = Augment(rand_augment_ops=1, rand_augment_magnitude=30)
    mild = Augment(rand_augment_ops=1, rand_augment_magnitude=3)

    def change(augment: Augment) -> float:
        return float(
            np.mean([(view(augment, view=i).int() - plain.int()).abs().float().mean().item() for i in range(100)])
        )

    assert change(strong) > 1.5 * change(mild)


def test_picture_on_another_device_takes_tensor_kernels_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs with data.cache=device on a GPU, tried here on the CPU: the same choices, pixels but for rounding."""
    augment = Augment(crop_scale=(0.3, 1.0), flip=True, color_jitter=(0.4, 0.4, 0.4, 0.0), cutout=0.3)
    with_pil = view(augment)
    monkeypatch.setattr(transforms, "_on_pil", lambda image, change: change(image))
    assert (view(augment).int() - with_pil.int()).abs().float().mean() < 1.0


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.8, 0.5)}, "crop_scale"),
        ({"cutout": 1.0}, "cutout"),
        ({"rand_augment_magnitude": 31}, "rand_augment_magnitude"),
    ],
)
def test_values_that_cannot_work(arguments: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"augment\.{key}"):
        Augment(**arguments)

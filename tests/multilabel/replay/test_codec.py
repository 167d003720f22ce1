"""How numbers are kept: sizes, exactness, and the bound that the faithfulness check relies on."""

import pytest
import torch

from tutelage.multilabel.replay.codec import codec

SHAPES = {"logits": ((20,), False), "map": ((3, 4), True), "maps": ((5, 3, 4), True)}


@pytest.mark.parametrize(
    ("field", "dtype", "size"),
    [
        ("logits", "float32", 80), ("logits", "float16", 40), ("logits", "uint8", 40),
        ("map", "float32", 48), ("map", "float16", 24), ("map", "uint8", 8 + 12),
        ("maps", "float16", 120), ("maps", "uint8", 5 * (8 + 12)),
    ],
)  # fmt: skip
def test_units_have_their_size_and_come_back_within_the_bound(field: str, dtype: str, size: int) -> None:
    shape, is_map = SHAPES[field]
    kept = codec(shape, dtype=dtype, is_map=is_map)  # type: ignore[arg-type]
    values = 3 * torch.randn(50, *shape, generator=torch.Generator().manual_seed(0)) - 2
    encoded = kept.encode(values)
    assert kept.unit_bytes == size and encoded.shape == (50, size) and encoded.dtype == torch.uint8
    found = kept.decode(encoded)
    assert found.shape == values.shape and found.dtype == torch.float32
    slack = 1e-6 * values.abs().max()
    assert ((found - values).abs() <= kept.bound(values) + slack).all()
    if kept.dtype != "float32":  # and no bound is far too wide
        assert (found - values).abs().max() > 0.3 * kept.bound(values).max()
    else:
        assert torch.equal(found, values)
    # What was rounded once is not rounded again: whoever records sees what others replay.
    assert torch.equal(kept.decode(kept.encode(found)), found) or kept.dtype == "uint8"


def test_a_map_of_one_value_is_kept_exactly() -> None:
    kept = codec((2, 2), dtype="uint8", is_map=True)
    values = torch.tensor([[[1.7, 1.7], [1.7, 1.7]], [[0.0, 255.0], [1.0, 2.0]]])
    assert torch.equal(kept.decode(kept.encode(values)), values)


def test_no_units_are_no_bytes() -> None:
    for dtype in ("float16", "float32", "uint8"):
        kept = codec((3, 4), dtype=dtype, is_map=True)  # type: ignore[arg-type]
        assert kept.decode(kept.encode(torch.empty(0, 3, 4))).shape == (0, 3, 4)


def test_logits_of_no_labels_are_no_bytes() -> None:
    kept = codec((0,), dtype="float16", is_map=False)
    encoded = kept.encode(torch.empty(3, 0))
    assert kept.unit_bytes == 0 and encoded.shape == (3, 0) and kept.decode(encoded).shape == (3, 0)

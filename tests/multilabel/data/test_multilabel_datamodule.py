from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from lightning import Trainer

from tutelage.core.batches import PADDING, Key
from tutelage.core.errors import ConfigError, DataError
from tutelage.multilabel.data import datamodule as module
from tutelage.multilabel.data.datamodule import ImageDataset, LoaderConfig, MultilabelDataModule, merge
from tutelage.multilabel.data.source import Batch, Boxes, SkippedImage
from tutelage.multilabel.data.table import Table
from tutelage.multilabel.data.transforms import Augment

AUGMENT = Augment(flip=True, cutout=0.5, rand_augment_ops=1)
CROP = Augment(crop_scale=(0.3, 1.0), flip=True)


class Drawn:
    """A source of noise in the smallest form: what another data set has to be."""

    label_names, fingerprint = ("a", "b"), "drawn"
    targets_NK = np.array([[i % 2, -(i % 3 == 0)] for i in range(11)], dtype=np.int8)

    def __init__(self, *, bad: int | None = None) -> None:
        self.bad, self.notes, self.ids = bad, {"selection": "held-out"}, [f"s{i}" for i in range(11)]

    def split(self, name: str) -> "Drawn":
        return self

    def image(self, index: int) -> torch.Tensor:
        if index == self.bad:
            raise SkippedImage(f"s{index}.jpg: truncated")
        return torch.randint(
            256, (3, 20 + index, 30), generator=torch.Generator().manual_seed(index), dtype=torch.uint8
        )

    def boxes(self, index: int) -> Boxes | None:
        return None


def data(source=None, *, augment: Augment = AUGMENT, seed: int = 1, **loading) -> MultilabelDataModule:
    chosen = LoaderConfig(**{"resolution": 16, "batch_size": 4, **loading})
    return MultilabelDataModule(source or Drawn(), augment=augment, loading=chosen, seed=seed)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


class Written(Drawn):
    """Writes down which pictures are decoded, in whatever process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def image(self, index: int) -> torch.Tensor:
        with self.path.open("a") as out:
            out.write(f"{index}\n")
        return super().image(index)

    def decoded(self) -> list[int]:
        """Return what was decoded since the last call."""
        found = [int(line) for line in self.path.read_text().split()]
        self.path.write_text("")
        return found


def test_evaluation_counts_each_sample_once_in_order() -> None:
    batches = list(data().test_dataloader())
    assert torch.cat([b.index_B for b in batches]).tolist() == list(range(11))
    assert torch.equal(torch.cat([b.target_BK for b in batches]), torch.from_numpy(Drawn.targets_NK))
    assert batches[0].images_BCHW.shape == (4, 3, 16, 16)
    assert batches[0].images_BCHW.dtype == torch.uint8
    assert batches[0].target_BK.dtype == torch.int8
    expected = data().evaluation_images("test", [0, 1, 2, 3])
    assert torch.equal(batches[0].images_BCHW, expected)


def views(batches: list[Batch]) -> dict[tuple[int, int], torch.Tensor]:
    """Return each picture by (index, view)."""
    return {
        (int(index), int(view)): image
        for batch in batches
        for image, index, view in zip(batch.images_BCHW, batch.index_B, batch.view_B, strict=True)
    }


def epochs(number: int, **settings) -> list[Batch]:
    loader = data(**settings).train_dataloader()
    return [batch for _ in range(number) for batch in loader]


def test_a_view_is_named_by_index_and_view_in_every_run() -> None:
    """The run's seed orders the batches; what they show is the augment seed's."""
    first, second = epochs(4, seed=1), epochs(4, seed=2)
    assert [batch.index_B.tolist() for batch in first] != [batch.index_B.tolist() for batch in second]
    shared = views(first).keys() & views(second).keys()
    assert len(shared) > 10
    assert all(torch.equal(views(first)[key], views(second)[key]) for key in shared)
    other = views(epochs(4, seed=1, augment=replace(AUGMENT, seed=1)))
    assert other.keys() == views(first).keys()
    assert not all(torch.equal(image, views(first)[key]) for key, image in other.items())


def test_an_epoch_shows_its_view_modulo_their_number() -> None:
    found = epochs(4, views=2)
    assert [batch.view_B.tolist() for batch in found] == [[view] * 4 for view in (0, 0, 1, 1, 0, 0, 1, 1)]
    fresh, repeated = views(epochs(2)), views(found)
    assert all(torch.equal(image, repeated[key]) for key, image in fresh.items() if key in repeated)
    for key, image in views(found[4:]).items():
        assert torch.equal(image, repeated[key])
    shown = data(views=2).training_images([3, 5], views=3)
    assert torch.equal(shown[:, 2], shown[:, 0]) and not torch.equal(shown[:, 1], shown[:, 0])


def test_augmentation_without_chance_has_one_view() -> None:
    assert {int(view) for batch in epochs(3, augment=Augment()) for view in batch.view_B} == {0}


def test_what_is_not_augmented_is_no_view() -> None:
    for loader in (data().val_dataloader(), data().calibration_dataloader()):
        assert {int(view) for batch in loader for view in batch.view_B} == {PADDING}
    with pytest.warns(UserWarning, match="passed over"):
        skipped = epochs(3, source=Drawn(bad=2))
    for batch in skipped:
        assert torch.equal(batch.view_B == PADDING, batch.index_B == PADDING)
    assert any(PADDING in batch.view_B for batch in skipped)


def test_training_batches_follow_seed_and_epoch() -> None:
    loader = data().train_dataloader()
    first, second = list(loader), list(loader)
    assert len(first) == 2  # 3 of 11 samples wait
    assert not same(first, second)
    again = data().train_dataloader()
    assert same(list(again), first)
    assert same(list(again), second)
    assert not same(list(data(seed=2).train_dataloader()), first)


@pytest.mark.parametrize("augment", [AUGMENT, CROP])
@pytest.mark.parametrize("loading", [{"workers": 2}, {"cache": "memory"}, {"cache": "memory", "workers": 2}])
def test_workers_and_cache_change_no_bit(augment: Augment, loading: dict) -> None:
    plain = data(augment=augment)
    other = data(augment=augment, **loading)
    assert same(list(other.train_dataloader()), list(plain.train_dataloader()))
    assert same(list(other.val_dataloader()), list(plain.val_dataloader()))


CROPS = {"crops_per_decode": 2, "crops_buffer": 8, "batch_size": 2}  # 5 steps of 11 pictures


@pytest.mark.parametrize("augment", [AUGMENT, CROP])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_picture_is_decoded_once_for_all_its_crops(tmp_path: Path, augment: Augment, workers: int) -> None:
    source = Written(tmp_path / "decoded")
    loader = data(source, augment=augment, workers=workers, **CROPS).train_dataloader()
    source.decoded()  # the first few, to tell how large they are
    for _ in range(2):
        batches = list(loader)
        assert [len(batch.index_B) for batch in batches] == [2] * 5
        found = source.decoded()
        assert sorted(found) == sorted({int(index) for batch in batches for index in batch.index_B})
        assert len(found) == 6  # 10 samples: two views of four pictures, and one of two
        usual = ImageDataset(source, decode=source.image, augment=augment, resolution=16, device=torch.device("cpu"))
        for (index, view), image in views(batches).items():
            assert torch.equal(image, usual[Key(index, view)][0])
        source.decoded()


def test_crops_are_the_same_in_any_number_of_processes() -> None:
    def rows(rank: int, world_size: int) -> list[list[tuple[int, int]]]:
        module = data(**CROPS)
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        module.trainer = SimpleNamespace(  # type: ignore[assignment]
            strategy=strategy, global_rank=rank, world_size=world_size, max_epochs=2
        )
        return [[*views([batch])] for batch in module.train_dataloader()]

    for whole, first, second in zip(rows(0, 1), rows(0, 2), rows(1, 2), strict=True):
        assert sorted(first + second) == sorted(whole)


def test_crops_that_leave_pictures_out_at_the_end_are_said() -> None:
    module = data(**CROPS)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1, max_epochs=5)  # type: ignore[assignment]
    with pytest.warns(UserWarning, match=r"the last 1 of trainer\.max_epochs=5 show only some; give a multiple of 2"):
        module.train_dataloader()


def test_crops_that_memory_will_not_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory", lambda: 2 * 8 * 3 * 16 * 16)
    data(**CROPS).train_dataloader()  # 8 squares at 16
    with pytest.raises(ConfigError, match=r"data\.crops_buffer: the pictures need about"):
        data(augment=CROP, **CROPS).train_dataloader()  # 8 whole pictures


@pytest.mark.parametrize(
    ("loading", "key"),
    [
        ({"crops_per_decode": 0}, "crops_per_decode"),
        ({"crops_per_decode": 2, "cache": "memory"}, "crops_per_decode: 2 gains nothing"),
        ({"crops_per_decode": 2, "crops_buffer": 3}, "crops_buffer: 3 pictures are fewer than a batch"),
    ],
)
def test_crops_that_cannot_be(loading: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{key}"):
        data(**loading)


def test_an_error_of_one_part_is_the_whole_batchs() -> None:
    (batch, other) = data().train_dataloader()
    error = DataError("a.jpg", "truncated", "restore it")
    assert merge([batch, error], pin_memory=False) is error
    both = merge([batch, other], pin_memory=False)
    assert isinstance(both, Batch)
    assert all(torch.equal(whole, torch.cat(parts)) for whole, *parts in zip(both, batch, other, strict=True))


def test_device_cache_needs_no_workers() -> None:
    cached = data(cache="device", workers=3)
    assert cached.val_dataloader().num_workers == 0
    assert same(list(cached.val_dataloader()), list(data().val_dataloader()))


def test_device_cache_lies_on_the_trainers_device() -> None:
    """The meta device stands for a GPU: it keeps shapes and no values, and nothing can be read from it."""
    cached = data(cache="device", workers=3)
    strategy = SimpleNamespace(root_device=torch.device("meta"))
    cached.trainer = SimpleNamespace(strategy=strategy, global_rank=0, world_size=1)  # type: ignore[assignment]
    loader = cached.val_dataloader()
    assert loader.num_workers == 0 and not loader.pin_memory
    batches = list(loader)
    assert [value.device.type for batch in batches for value in batch] == ["meta"] * 12
    assert [tuple(batch.images_BCHW.shape) for batch in batches] == [(4, 3, 16, 16), (4, 3, 16, 16), (3, 3, 16, 16)]


@pytest.mark.parametrize("crops", [{}, {"crops_per_decode": 2, "crops_buffer": 8}])
def test_resume_inside_an_epoch_goes_on_with_the_next_batch(crops: dict) -> None:
    whole = data(**crops).train_dataloader()
    expected = list(whole) + list(whole)
    for stop in range(1, 4):
        loader, seen = data(**crops).train_dataloader(), []
        while len(seen) < stop:
            for batch in loader:
                seen.append(batch)
                if len(seen) == stop:
                    break
        resumed = data(**crops).train_dataloader()
        resumed.load_state_dict(loader.state_dict())
        while len(seen) < 4:
            seen.extend(resumed)
        assert same(seen, expected)


@pytest.mark.parametrize("loading", [{}, {"cache": "memory"}])
def test_skipped_picture_is_a_row_that_counts_nowhere(loading: dict) -> None:
    with pytest.warns(UserWarning, match=r"passed over: s2\.jpg: truncated"):
        batches = list(data(Drawn(bad=2), **loading).test_dataloader())
    assert torch.cat([b.index_B for b in batches]).tolist() == [0, 1, PADDING, *range(3, 11)]
    assert batches[0].target_BK[2].tolist() == [-1, -1]
    assert not batches[0].images_BCHW[2].any()
    with pytest.warns(UserWarning, match="passed over"):
        shown = data(Drawn(bad=2), **loading).evaluation_images("test", [2, 3])
    assert [bool(image.any()) for image in shown] == [False, True]


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_picture_ends_the_run_with_its_name(table_root: Path, workers: int) -> None:
    source = Table(root=table_root, selection="test")
    name = source.split("test").ids[3]
    (table_root / name).write_bytes(b"no picture")
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    with pytest.raises(DataError, match=rf"{name}: not a picture"):
        trainer.test(Nothing(), data(source, workers=workers), verbose=False)


class Nothing(lightning.LightningModule):
    def test_step(self, batch: Batch) -> None:
        assert batch.index_B.min() >= 0


def test_cache_that_does_not_fit_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 11 * 3 * 16 * 16  # bytes of all pictures
    monkeypatch.setattr(module, "memory", lambda: 2 * needed)
    data(cache="memory").test_dataloader()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # two processes of this machine, and a cache in each
    with pytest.raises(ConfigError, match=r"data\.cache: the pictures need about 2 × 0\.0 GB of 0\.0 GB"):
        data(cache="memory").test_dataloader()


@pytest.mark.parametrize(("key", "value"), [("resolution", 0), ("batch_size", 0), ("workers", -1), ("views", 0)])
def test_values_that_cannot_work(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{key}"):
        data(**{key: value})

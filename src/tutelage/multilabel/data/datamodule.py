"""Batches of a data set: decoded, augmented, cached where asked, resumable in the middle of an epoch."""

# B batch, K labels, R resolution

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from tutelage.core.batches import PADDING, EvalBatches, Key, TrainBatches, TrainLoader, make_loader
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.startup import cores, memory
from tutelage.multilabel.data.source import IGNORED, Batch, SkippedImage, Source, Split, SplitName
from tutelage.multilabel.data.transforms import Augment, resize_square


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderConfig:
    """The part of ``data`` that says how pictures reach the networks.

    Attributes:
        resolution: Side R of the square that pictures are resized or cropped to.
        batch_size: Samples of one step over all processes.
        views: How many augmented views there are of each picture: epoch e shows view e modulo this. None: as many as
            epochs, so that each epoch shows a new one.
        crops_per_decode: How many views an epoch shows of a picture that it decodes. Above 1, an epoch shows so many
            times fewer pictures, and as many samples as ever; so many epochs show them all (FKD, arXiv 2112.01528).
        crops_buffer: Decoded pictures that are held for their next views, at most, over all processes. The more, the
            further apart lie the views of a picture. The order of samples depends on it, so it is not chosen by the
            machine's memory.
        workers: Loader processes of each training process; 0 loads in the process itself.
        cache: Where decoded pictures are kept: nowhere, in this machine's memory, or on the device (which needs no
            workers, since nothing is decoded or copied after the start).
    """

    resolution: int
    batch_size: int
    views: int | None = None
    crops_per_decode: int = 1
    crops_buffer: int = 1024
    workers: int = 0
    cache: Literal["none", "memory", "device"] = "none"

    def __post_init__(self) -> None:
        for key, value in (
            ("resolution", self.resolution),
            ("batch_size", self.batch_size),
            ("crops_per_decode", self.crops_per_decode),
        ):
            if value < 1:
                raise ConfigError(f"data.{key}", f"{value} is not positive", "give a whole number from 1")
        if self.views is not None and self.views < 1:
            raise ConfigError("data.views", f"{self.views} is not positive", "give a whole number from 1, or null")
        if self.workers < 0:
            raise ConfigError("data.workers", f"{self.workers} is negative", "give 0 or more")
        if self.crops_per_decode > 1 and self.cache != "none":
            raise ConfigError(
                "data.crops_per_decode",
                f"{self.crops_per_decode} gains nothing: data.cache={self.cache} decodes each picture once already",
                "set data.crops_per_decode=1, or data.cache=none",
            )
        if self.crops_per_decode > 1 and self.crops_buffer < self.batch_size:
            raise ConfigError(
                "data.crops_buffer",
                f"{self.crops_buffer} pictures are fewer than a batch ({self.batch_size}), whose views must lie apart",
                f"give {16 * self.batch_size}, or at least {self.batch_size}",
            )


Sample = tuple[Tensor, Tensor, int, int]
Decode = Callable[[int], Tensor]


class MultilabelDataModule(LightningDataModule):
    """Train, validation and test batches of one source."""

    def __init__(
        self, source: Source, *, augment: Augment, loading: LoaderConfig, seed: int, test_split: SplitName = "test"
    ) -> None:
        super().__init__()
        self.source, self.augment, self.loading, self.seed = source, augment, loading, seed
        self.test_split: SplitName = test_split  # a finished run may be scored on another one
        self._caches: dict[tuple[SplitName, bool], Decode] = {}

    def train_dataloader(self) -> TrainLoader:
        """Batches in an order of (seed, epoch); each picture is a function of (augment seed, view, sample id)."""
        rank, world_size = self._place()
        dataset, crops = self._dataset("train", self.augment), self.loading.crops_per_decode
        batches = TrainBatches(
            len(dataset),
            batch_size=self.loading.batch_size,
            seed=self.seed,
            views=self._views(),
            crops=crops,
            buffer=self.loading.crops_buffer,
            rank=rank,
            world_size=world_size,
        )
        if crops > 1:
            self._check_crops(dataset, world_size=world_size)
        pin_memory = self._pin_memory()
        return TrainLoader(
            dataset,
            batches=batches,
            collate=collate,
            workers=self._workers(),
            pin_memory=pin_memory,
            merge=partial(merge, pin_memory=pin_memory) if crops > 1 else None,
        )

    def _check_crops(self, dataset: "ImageDataset", *, world_size: int) -> None:
        """Refuse a buffer that memory will not hold; warn where the last epochs do not show all pictures."""
        first = [held for index in range(min(len(dataset), 16)) if (held := dataset.decoded(index)) is not None]
        _refuse_if_too_large(
            first,
            -(-min(self.loading.crops_buffer, len(dataset)) // world_size),
            torch.device("cpu"),
            key="data.crops_buffer",
            hint="give a smaller data.crops_buffer, or set data.crops_per_decode=1",
        )
        crops = self.loading.crops_per_decode
        epochs = self.trainer.max_epochs if self.trainer is not None else None
        if epochs is not None and epochs > 0 and epochs % crops:
            warnings.warn(
                f"data.crops_per_decode={crops} shows all pictures in {crops} epochs: the last {epochs % crops} of "
                f"trainer.max_epochs={epochs} show only some; give a multiple of {crops}",
                stacklevel=2,
            )

    def val_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._evaluation_loader(self.test_split)

    def calibration_dataloader(self) -> DataLoader[Any]:
        """Every training sample once, in order, as at evaluation, the same on every process."""
        dataset = self._dataset("train", None)
        batches = EvalBatches(len(dataset), batch_size=self.loading.batch_size)
        return make_loader(
            dataset, batches=batches, collate=collate, workers=self._workers(), pin_memory=self._pin_memory()
        )

    def evaluation_images(self, name: SplitName, indices: Sequence[int]) -> Tensor:
        """Return some pictures as the networks see them at evaluation: uint8 [len(indices), 3, R, R], on the CPU.

        A skipped picture is black.
        """
        dataset = self._dataset(name, None)
        batch = collate([dataset[Key(index, 0)] for index in indices])
        assert isinstance(batch, Batch)
        return batch.images_BCHW.cpu()

    def training_images(self, indices: Sequence[int], *, views: int) -> Tensor:
        """Return some training pictures as the student meets them in the first epochs, a view each.

        Returns:
            uint8 [len(indices), views, 3, R, R], on the CPU.
        """
        dataset, distinct = self._dataset("train", self.augment), self._views() or views
        batch = collate([dataset[Key(index, view % distinct)] for index in indices for view in range(views)])
        assert isinstance(batch, Batch)
        return batch.images_BCHW.cpu().reshape(len(indices), views, *batch.images_BCHW.shape[1:])

    def on_before_batch_transfer(self, batch: Batch | DataError, dataloader_idx: int) -> Batch:
        """Raise, in the training process, the error that a loader process met (see `collate`)."""
        if isinstance(batch, DataError):
            raise batch
        return batch

    def _evaluation_loader(self, name: SplitName) -> DataLoader[Any]:
        rank, world_size = self._place()
        dataset = self._dataset(name, None)
        batches = EvalBatches(len(dataset), batch_size=self.loading.batch_size, rank=rank, world_size=world_size)
        return make_loader(
            dataset, batches=batches, collate=collate, workers=self._workers(), pin_memory=self._pin_memory()
        )

    def _dataset(self, name: SplitName, augment: Augment | None) -> "ImageDataset":
        split = self.source.split(name)
        return ImageDataset(
            split,
            decode=self._decoder(name, split, square=augment is None or augment.keeps_whole),
            augment=augment,
            resolution=self.loading.resolution,
            device=self._cache_device(),
        )

    def _decoder(self, name: SplitName, split: Split, *, square: bool) -> Decode:
        if self.loading.cache == "none":
            return split.image
        key = (name, square)
        if key not in self._caches:
            resolution = self.loading.resolution if square else None
            self._caches[key] = Cache(split, resolution=resolution, device=self._cache_device())
        return self._caches[key]

    def _cache_device(self) -> torch.device:
        if self.loading.cache == "device" and self.trainer is not None:
            return self.trainer.strategy.root_device
        return torch.device("cpu")

    def _views(self) -> int | None:
        """How many different views there are of a picture; None is no end of them."""
        return self.loading.views if self.augment.is_random else 1

    def _workers(self) -> int:
        return 0 if self.loading.cache == "device" else self.loading.workers

    def _pin_memory(self) -> bool:
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return on_cuda and self.loading.cache != "device"

    def _place(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)


class ImageDataset(Dataset[Sample | DataError]):
    """A split as rows of batches."""

    def __init__(
        self,
        split: Split,
        *,
        decode: Decode,
        augment: Augment | None,
        resolution: int,
        device: torch.device,
    ) -> None:
        self.split, self.decode, self.augment, self.resolution = split, decode, augment, resolution
        self.held: dict[int, Tensor] = {}  # decoded, and waiting for their next view
        self.targets_NK = torch.from_numpy(split.targets_NK).to(device)
        self.nothing_3RR = torch.zeros(3, resolution, resolution, dtype=torch.uint8, device=device)
        self.unknown_K = torch.full((self.targets_NK.shape[1],), IGNORED, dtype=torch.int8, device=device)

    def __len__(self) -> int:
        return len(self.split.ids)

    def __getitem__(self, key: Key) -> Sample | DataError:
        """Return picture, targets, index and view; in a loader process, errors too (see `collate`)."""
        index, view, keep = key
        if index == PADDING:
            return self._empty_row()
        try:
            image = self.held.pop(index, None)
            if image is None:
                image = self._decode(index)
        except SkippedImage as skipped:
            warnings.warn(f"passed over: {skipped}", stacklevel=1)
            return self._empty_row()
        except DataError as error:
            if get_worker_info() is None:
                raise
            return error
        if keep:
            self.held[index] = image
        if self.augment is None:
            return image, self.targets_NK[index], index, PADDING
        image = self.augment(image, resolution=self.resolution, view=view, sample_id=self.split.ids[index])
        return image, self.targets_NK[index], index, view

    def decoded(self, index: int) -> Tensor | None:
        """Return what is held of a picture between its views: uint8 [3, H, W]; None for a skipped one."""
        try:
            return self._decode(index)
        except SkippedImage:
            return None

    def _decode(self, index: int) -> Tensor:
        image = self.decode(index)
        if self.augment is None or self.augment.keeps_whole:
            return resize_square(image, resolution=self.resolution)  # once for all views
        return image

    def _empty_row(self) -> Sample:
        return self.nothing_3RR, self.unknown_K, PADDING, PADDING


def collate(samples: list[Sample | DataError]) -> Batch | DataError:
    """Stack rows into a batch, on the device that the pictures are on.

    An error travels as the batch: raised in a loader process it would reach the user as a RuntimeError that quotes a
    traceback.
    """
    rows: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        rows.append(sample)
    images, targets, indices, views = zip(*rows, strict=True)
    return Batch(
        images_BCHW=torch.stack(images),
        target_BK=torch.stack(targets),
        index_B=torch.tensor(indices, dtype=torch.int64, device=images[0].device),
        view_B=torch.tensor(views, dtype=torch.int64, device=images[0].device),
    )


def merge(parts: Sequence[Batch | DataError], *, pin_memory: bool) -> Batch | DataError:
    """Put together a batch whose rows were loaded in several processes."""
    batches: list[Batch] = []
    for part in parts:
        if isinstance(part, DataError):
            return part
        batches.append(part)

    def joined(values: tuple[Tensor, ...]) -> Tensor:
        shape = (sum(len(value) for value in values), *values[0].shape[1:])
        return torch.cat(values, out=torch.empty(shape, dtype=values[0].dtype, pin_memory=pin_memory))

    return Batch(*(joined(values) for values in zip(*batches, strict=True)))


class Cache:
    """A split's decoded pictures, one after the other in one buffer that worker processes share.

    Pictures are kept as squares where the augmentation begins with that resize, which changes no pixel of the result
    and costs 3·R² bytes each; else as they were decoded.
    """

    def __init__(self, split: Split, *, resolution: int | None, device: torch.device) -> None:
        count = len(split.ids)

        def load(index: int) -> Tensor | SkippedImage:
            try:
                image = split.image(index)
            except SkippedImage as skipped:
                return skipped
            image = image if resolution is None else resize_square(image, resolution=resolution)
            return image.permute(1, 2, 0).contiguous()  # rows of RGB, as decoders give it: resizing is fastest so

        first = [load(index) for index in range(min(count, 64))]
        _refuse_if_too_large([picture for picture in first if isinstance(picture, Tensor)], count, device)
        self.skipped: dict[int, SkippedImage] = {}
        pictures: list[Tensor | None] = []
        # Decoding leaves the interpreter's lock, so threads are enough, and nothing is copied between processes.
        with ThreadPoolExecutor(cores()) as threads:
            for index, loaded in enumerate(threads.map(load, range(count))):
                if isinstance(loaded, SkippedImage):
                    self.skipped[index] = loaded
                    loaded = torch.zeros(0, 0, 3, dtype=torch.uint8)
                pictures.append(loaded)
        self.shapes = [picture.shape for picture in pictures if picture is not None]
        self.starts = np.append(0, np.cumsum([np.prod(shape) for shape in self.shapes], dtype=np.int64))
        self.bytes = torch.empty(int(self.starts[-1]), dtype=torch.uint8, device=device)
        if device.type == "cpu":
            self.bytes = self.bytes.share_memory_()  # type: ignore[no-untyped-call]
        for index, picture in enumerate(pictures):
            assert picture is not None
            self.bytes[self.starts[index] : self.starts[index + 1]] = picture.reshape(-1).to(device)
            pictures[index] = None  # freed as it is copied, or the peak would be twice the size

    def __call__(self, index: int) -> Tensor:
        """Return one picture, uint8 [3, H, W], without copying it."""
        if index in self.skipped:
            raise self.skipped[index]
        flat = self.bytes[self.starts[index] : self.starts[index + 1]]
        return flat.view(self.shapes[index]).permute(2, 0, 1)


def _refuse_if_too_large(
    first: Sequence[Tensor],
    count: int,
    device: torch.device,
    *,
    key: str = "data.cache",
    hint: str = "set data.cache=none",
) -> None:
    """Say from the first pictures whether all of them will fit, before minutes are spent and memory runs out.

    Each training process keeps pictures of its own: those of one machine share its memory, but not a device's.
    """
    needed = sum(picture.numel() for picture in first) / max(len(first), 1) * count
    processes = 1 if device.type == "cuda" else int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else memory()
    if processes * needed > 0.7 * total:
        times = f"{processes} × " if processes > 1 else ""
        raise ConfigError(
            key,
            f"the pictures need about {times}{needed / 2**30:.1f} GB of {total / 2**30:.1f} GB of memory",
            hint,
        )

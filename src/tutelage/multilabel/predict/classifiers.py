"""What predicts: the student of a run, or an exported ONNX file, which needs no torch."""

# B batch, K labels, H W map, R resolution

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import ConfigError
from tutelage.core.store import file_hash
from tutelage.multilabel.predict.pictures import Pixels, Unreadable, read_with_pil

Floats = NDArray[np.float32]
DESCRIPTION = "network.json"  # stands beside an exported ONNX file


@dataclass(frozen=True, slots=True)
class Looked:
    """What a classifier says of a batch: logits [B, K] and, where they were asked for, maps [B, K, H, W]."""

    logits_BK: Floats
    cams_BKHW: Floats | None


class Classifier(Protocol):
    """A network with what it takes to use it.

    Attributes:
        labels: Names, in the order of the logits.
        thresholds_K: Probability above which a label is predicted.
        fingerprint: Of its weights, so that a resumed job can tell that it is the same network.
    """

    labels: tuple[str, ...]
    thresholds_K: Floats
    fingerprint: str

    def read(self, path: Path) -> Pixels: ...

    def look(self, images: list[Pixels], *, cams: bool) -> Looked: ...


class OnnxClassifier:
    """An exported network under onnxruntime."""

    def __init__(self, file: Path) -> None:
        """Open the file and the ``network.json`` beside it.

        Raises:
            ConfigError: No such file, no description, or a network that export.py did not write.
        """
        self._session = _session(file)
        description = _description(file)
        self.labels: tuple[str, ...] = tuple(description["labels"])
        self.thresholds_K = np.asarray(description["thresholds"], np.float32)
        self.fingerprint = file_hash(file)
        self._resolution = int(description["resolution"])

    def read(self, path: Path) -> Pixels:
        """Read a picture as uint8 [R, R, 3]."""
        return read_with_pil(path, resolution=self._resolution)

    def look(self, images: list[Pixels], *, cams: bool) -> Looked:
        """Classify a batch; an ONNX file has no maps, so ``cams`` has to be off."""
        assert not cams
        batch = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255
        (logits_BK,) = self._session.run(["logits_BK"], {"images_BCHW": batch})
        return Looked(np.asarray(logits_BK, np.float32), None)


class RunClassifier:
    """The best student of a finished run."""

    def __init__(self, run: Path, *, device: str, trusted: Collection[str] = ()) -> None:
        """Load the student and the thresholds that were kept with the run.

        Raises:
            ConfigError: No finished run of this task, or a device that this machine lacks.
        """
        import torch

        from tutelage.core.callbacks import BEST, CHECKPOINTS
        from tutelage.multilabel.results.exporting import open_student
        from tutelage.multilabel.results.thresholds import read_thresholds

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network, self.labels = open_student(run, trusted=trusted)
        try:
            self._network.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError("device", f"{device}: {str(error).splitlines()[0]}", "use device=cpu") from None
        self._device = device
        self.thresholds_K = read_thresholds(run, labels=self.labels)
        self.fingerprint = file_hash(run / CHECKPOINTS / BEST)

    def read(self, path: Path) -> Pixels:
        """Read a picture as uint8 [R, R, 3], as the evaluation of the run did."""
        from tutelage.multilabel.data.images import BadImage, read_image
        from tutelage.multilabel.data.transforms import resize_square

        try:
            image = read_image(path)
        except BadImage as error:
            raise Unreadable(str(error)) from None
        return np.asarray(resize_square(image, resolution=self._network.resolution).permute(1, 2, 0))

    def look(self, images: list[Pixels], *, cams: bool) -> Looked:
        """Classify a batch, and draw the map of each label where ``cams`` is on."""
        import torch

        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self._device)
        with torch.no_grad():
            output = self._network(pixels, reads=frozenset({"cams_BKHW"}) if cams else frozenset())
        maps = None if output.cams_BKHW is None else output.cams_BKHW.float().cpu().numpy()
        return Looked(output.logits_BK.float().cpu().numpy(), maps)


def _session(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("onnx", f"onnxruntime is missing ({error})", "pip install onnxruntime") from None
    if not file.is_file():
        raise ConfigError("onnx", f"no file {file}", "export one: python export.py run=runs/…")
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common class for its errors
        reason = str(error).strip().splitlines()[0]
        raise ConfigError("onnx", f"{file} is no ONNX network ({reason})", "export one with export.py") from None
    names = [value.name for value in (*session.get_inputs(), *session.get_outputs())]
    if names != ["images_BCHW", "logits_BK"]:
        raise ConfigError("onnx", f"{file} has {', '.join(names)} and is none of ours", "export one with export.py")
    return session


def _description(file: Path) -> dict[str, Any]:
    path = file.with_name(DESCRIPTION)
    hint = f"keep {DESCRIPTION} beside the ONNX file, as export.py writes it"
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("onnx", f"{path} cannot be read ({error})", hint) from None
    missing = {"labels", "resolution", "thresholds"} - set(description)
    if missing:
        raise ConfigError("onnx", f"{path} lacks {', '.join(sorted(missing))}", "export the run again with export.py")
    return description

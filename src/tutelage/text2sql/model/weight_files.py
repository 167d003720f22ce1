"""Whether files of weights are whole; transformers would notice after minutes, or never."""

import json
from functools import lru_cache
from pathlib import Path

from gguf import GGUFReader

from tutelage.core.errors import DataError


@lru_cache  # a large vocabulary takes seconds to read
def check_gguf(path: Path) -> None:
    """Read the header, and compare where the tensors end with the file's size.

    Raises:
        DataError: No GGUF file, or one that is cut off.
    """
    hint = "download the file again"
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != b"GGUF":
            raise DataError(
                "model.path", f"{path} is not a GGUF file", "give a .gguf file, or a folder with config.json"
            )
        tensors = GGUFReader(str(path)).tensors
    except (ValueError, IndexError, OSError) as error:
        raise DataError("model.path", f"{path} cannot be read as GGUF, it may be cut off ({error})", hint) from None
    end = max((int(tensor.data_offset) + int(tensor.n_bytes) for tensor in tensors), default=0)
    if end > path.stat().st_size:
        raise DataError("model.path", f"{path} is cut off: {path.stat().st_size} of {end} bytes", hint)


def check_safetensors(folder: Path) -> None:
    """Read the header of each file of weights, and compare where its tensors end with its size.

    Raises:
        DataError: A file that is missing or cut off. A folder without any is left to transformers.
    """
    files = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files = [folder / name for name in sorted(set(named))]
    for path in files:
        if not path.exists():
            raise DataError("model.path", f"{path} is missing, which {index.name} names", "download the model again")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length < path.stat().st_size else b""
        try:
            tensors = json.loads(header)
        except ValueError:
            raise DataError(
                "model.path", f"{path} is cut off, or is not a file of weights", "download it again"
            ) from None
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
        if whole > path.stat().st_size:
            raise DataError(
                "model.path", f"{path} is cut off: {path.stat().st_size} of {whole} bytes", "download it again"
            )

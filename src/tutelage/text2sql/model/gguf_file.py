"""Whether a GGUF file is whole; transformers would notice after minutes, or never."""

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
            raise DataError("model.path", f"{path} is no GGUF file", "give a .gguf file, or a folder with config.json")
        tensors = GGUFReader(str(path)).tensors
    except (ValueError, IndexError, OSError) as error:
        raise DataError("model.path", f"{path} cannot be read as GGUF, it may be cut off ({error})", hint) from None
    end = max((int(tensor.data_offset) + int(tensor.n_bytes) for tensor in tensors), default=0)
    if end > path.stat().st_size:
        raise DataError("model.path", f"{path} is cut off: {path.stat().st_size} of {end} bytes", hint)

"""Results of costly steps, kept by the hash of what made them.

A result is a folder. It is built under a lock in ``<hash>.partial``, which outlives a kill so that the next
builder can resume in it, gets a ``manifest.json``, and is then renamed: a folder without that suffix is whole.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from tutelage.core.errors import ConfigError


def content_hash(inputs: Mapping[str, Any]) -> str:
    """Hash JSON values; the order of keys does not count."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_atomically(path: Path, text: str) -> None:
    r"""Write a text file that is seen whole or not at all.

    A lone surrogate, which UTF-8 cannot hold, becomes ``\udcff``: readable in a page, and its own escape in JSON.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Store:
    """Finished results under ``<root>/<kind>/<hash of inputs>/``."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def find(self, kind: str, inputs: Mapping[str, Any]) -> Path | None:
        """Return the finished folder, or None."""
        folder = self.root / kind / content_hash(inputs)
        return folder if (folder / "manifest.json").is_file() else None

    def make(self, kind: str, inputs: Mapping[str, Any], build: Callable[[Path], Mapping[str, Any] | None]) -> Path:
        """Return the finished folder of ``inputs``, building it first where there is none.

        Args:
            kind: What sort of result this is, such as ``teachers``.
            inputs: Everything that the result depends on, as JSON values.
            build: Fills the folder it is given. After a kill it is called again with the same folder and
                what was left there. What it returns is added to the manifest.
        """
        folder = self.root / kind / content_hash(inputs)
        if found := self.find(kind, inputs):
            return found
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            (folder.parent / f".{os.getpid()}").touch()
            (folder.parent / f".{os.getpid()}").unlink()
        except OSError as error:
            raise ConfigError(
                "store",
                f"cannot write into {folder.parent} ({error.strerror})",
                "give another: store=… or TUTELAGE_STORE",
            ) from None
        # The lock is the operating system's, so a killed builder leaves none behind.
        with FileLock(folder.with_suffix(".lock")):
            if found := self.find(kind, inputs):
                return found
            partial = folder.with_suffix(".partial")
            partial.mkdir(exist_ok=True)
            said = build(partial)
            manifest = {"kind": kind, "inputs": inputs, **(said or {})}
            write_atomically(partial / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            partial.rename(folder)
        return folder

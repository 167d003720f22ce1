"""What ``export.py`` does with a text-to-SQL run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tutelage.core import results
from tutelage.core.arguments import split_names
from tutelage.core.build import build
from tutelage.core.errors import ConfigError
from tutelage.core.run_folder import load_config
from tutelage.core.store import write_atomically
from tutelage.core.templates import CARD
from tutelage.text2sql.export import card, gguf, ollama
from tutelage.text2sql.export.folder import write_folder
from tutelage.text2sql.model.saved import MODEL, base_of
from tutelage.text2sql.prompts import Prompt

USAGE = "python export.py run=runs/text2sql/…"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """The command line.

    Attributes:
        run: The folder of a finished run.
        out: Where the files go; ``export`` in the run's folder where it is null.
        gguf: Write a GGUF file, too. ``auto`` does so where llama.cpp's converter is found.
        converter: llama.cpp's ``convert_hf_to_gguf.py``; null looks for it on PATH.
        gguf_type: How the GGUF file keeps its weights.
        trust: Packages, with commas between them, whose classes the run's config may name.
    """

    run: Path
    out: Path | None = None
    gguf: Literal["auto", "true", "false"] = "auto"
    converter: Path | None = None
    gguf_type: Literal["auto", "f32", "f16", "bf16", "q8_0"] = "auto"
    trust: str = ""


def export_run(settings: ExportSettings) -> None:
    """Write a run's model for use without Tutelage; the run's data need not be there.

    Raises:
        ConfigError: No finished run of this task, or GGUF was asked for and there is no converter.
        RunError: The converter failed; everything else is written.
    """
    run = settings.run
    metrics = results.read_metrics(run)
    if metrics is None:
        raise ConfigError("run", f"{run} holds no finished run", f"finish it with: python train.py run={run}")
    cfg = load_config(run, trusted=split_names(settings.trust))
    if not str(cfg.task._target_).startswith("tutelage.text2sql."):
        raise ConfigError("run", f"{run} is no run of task=text2sql", "give the run of a language model")
    if not (run / MODEL).is_dir():
        raise ConfigError("run", f"{run} holds no model", f"train it again: python train.py run={run}")
    converter = None
    if settings.gguf != "false":
        converter = gguf.find_converter(settings.converter)  # before the long part
        if converter is None and settings.gguf == "true":
            raise ConfigError("gguf", "llama.cpp's converter is not on PATH", gguf.HINT)
    out = run / "export" if settings.out is None else settings.out
    spec = base_of(build(cfg.model, where="model"), run / MODEL)
    prompt: Prompt = build(cfg.prompt, where="prompt")
    exported = write_folder(
        spec,
        run / MODEL,
        out,
        template=prompt.template,
        prompt_tokens=prompt.max_tokens,
        max_new_tokens=cfg.inference.max_new_tokens,
    )
    write_atomically(out / CARD, card.write(cfg, prompt, exported, metrics=metrics, run=run))
    source = "."  # Ollama reads the safetensors of common models as well
    try:
        if converter is not None:
            gguf.convert(converter, out, out / gguf.FILE, kept_as=settings.gguf_type)
            source = f"./{gguf.FILE}"
    finally:
        write_atomically(out / ollama.MODELFILE, ollama.modelfile(exported, source=source))
    for path in sorted(out.iterdir()):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    if converter is None and settings.gguf == "auto":
        print(f"No GGUF file: llama.cpp's converter is not on PATH. {gguf.HINT[:1].upper()}{gguf.HINT[1:]}.")

"""Take a run's model away: ``python export.py run=runs/…`` writes it, and a model card, into ``<run>/export``.

An image classifier goes to timm and ONNX (docs/networks.md), a language model to a Hugging Face folder, GGUF and Ollama
(docs/take_a_model_away.md). ``out=folder`` writes elsewhere.
"""

import sys
from pathlib import Path


def main() -> None:
    """Export, or say in one line why not."""
    arguments = sys.argv[1:]
    if not arguments or {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    from tutelage.core import startup
    from tutelage.core.arguments import parse_arguments
    from tutelage.core.errors import UserError

    startup.prepare()
    try:
        if trains_language_models(arguments):
            from tutelage.text2sql.export import command

            command.export_run(parse_arguments(arguments, command.ExportSettings, usage=command.USAGE))
        else:
            from tutelage.multilabel.results import exporting

            exporting.export_run(parse_arguments(arguments, exporting.ExportSettings, usage=exporting.USAGE))
    except UserError as error:
        sys.exit(f"error: {error}")


def trains_language_models(arguments: list[str]) -> bool:
    """Whether the run is one of task=text2sql."""
    folder = next((text.removeprefix("run=") for text in arguments if text.startswith("run=")), None)
    return folder is not None and _task_of(Path(folder)).startswith("tutelage.text2sql.")


def _task_of(run: Path) -> str:
    from tutelage.core.run_folder import load_config

    # What the config names is only read here; the export itself takes what trust= allows.
    return str(load_config(run, trusted=None).task._target_)


if __name__ == "__main__":
    main()

"""Take a run's student away: ``python export.py run=runs/…`` writes it for timm and as ONNX into ``<run>/export``.

``out=folder`` writes elsewhere, ``onnx=false`` leaves ONNX out. docs/networks.md says what the files are.
"""

import sys


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
    from tutelage.multilabel.results.exporting import USAGE, ExportSettings, export_run

    try:
        export_run(parse_arguments(arguments, ExportSettings, usage=USAGE))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

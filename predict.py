"""Label pictures with a trained run: ``python predict.py run=runs/… images=photos out=labels``.

Writes ``predictions.csv`` and a contact sheet; ``cams=true`` adds where each label was seen, ``onnx=….onnx`` takes an
exported network instead of a run and needs no torch. docs/predict.md says what else can be set.
"""

import sys


def main() -> None:
    """Predict, or say in one line why not."""
    arguments = sys.argv[1:]
    if not arguments or {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    from tutelage.core.arguments import parse_arguments
    from tutelage.core.errors import UserError
    from tutelage.multilabel.predict.command import USAGE, PredictSettings, predict

    try:
        predict(parse_arguments(arguments, PredictSettings, usage=USAGE))
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

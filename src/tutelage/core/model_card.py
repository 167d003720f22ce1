"""Model cards: the README.md that goes with an exported model, written from a Jinja template."""

from collections.abc import Mapping

import jinja2
import yaml

CARD = "README.md"


def render(package: str, template: str, *, header: Mapping[str, object], values: Mapping[str, object]) -> str:
    """Write a card.

    Args:
        package: Holds the template.
        template: Its file. What it names and is not given is an error.
        header: The metadata that model hubs read, as YAML; the template's ``header``.
        values: What else the template names.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    written = yaml.safe_dump(dict(header), sort_keys=False).strip()
    return environment.get_template(template).render(header=written, **values)

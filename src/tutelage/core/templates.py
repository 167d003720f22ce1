"""What is written from Jinja templates: HTML reports, and the README.md that goes with an exported model."""

from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import yaml

CARD = "README.md"


def render_page(
    package: str, template: str, *, filters: Mapping[str, Callable[..., Any]] | None = None, **values: object
) -> str:
    """Write an HTML page.

    Args:
        package: Holds the template.
        template: Its file. What it names and is not given is an error.
        filters: Functions that the template calls by name.
        values: What the template names. Text is escaped.
    """
    environment = _environment(package, escape=True)
    environment.filters.update(filters or {})
    return environment.get_template(template).render(**values)


def render_card(package: str, template: str, *, header: Mapping[str, object], values: Mapping[str, object]) -> str:
    """Write a model card.

    Args:
        package: Holds the template.
        template: Its file. What it names and is not given is an error.
        header: The metadata that model hubs read, as YAML; the template's ``header``.
        values: What else the template names.
    """
    written = yaml.safe_dump(dict(header), sort_keys=False).strip()
    return _environment(package, escape=False).get_template(template).render(header=written, **values)


def _environment(package: str, *, escape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )

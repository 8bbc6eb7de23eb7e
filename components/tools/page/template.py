"""Fills a page's template, which extends `base.html`."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

SHELL = Path(__file__).parent


def fill(folder: Path, values: dict[str, Any]) -> str:
    """The page.html of a folder as one HTML text; every value becomes text, unless it is markup.

    Args:
        folder: has page.html, and the files that it puts in by `file`.
        values: `kind` and `name`, which make the title, and what the template shows.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([folder, SHELL])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["script_data"] = script_data
    environment.globals["file"] = lambda part: Markup(loader.get_source(environment, part)[0])
    return environment.get_template("page.html").render(values) + "\n"


def script_data(value: Any) -> Markup:
    """JSON inside a script element, which no text in it can end."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))

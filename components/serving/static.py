"""The page for people and the pages about the API: files of this folder, sent with strict headers.

No page asks another host for anything, and none holds anything of the model: scripts fetch that, with the token.
"""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

FOLDER = Path(__file__).with_name("page")
HTML, TEXT = "text/html; charset=utf-8", "utf-8"
FILES = {
    "/": ("index.html", HTML),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/docs": ("docs.html", HTML),
    "/openapi.json": ("openapi.json", "application/json"),
}
"""File and media type of each path."""
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data: blob:",
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""Of every response."""


@dataclass(frozen=True)
class File:
    content: str
    media_type: str


def load_files() -> dict[str, File]:
    """The files by path."""
    files = {path: File((FOLDER / name).read_text(encoding=TEXT), kind) for path, (name, kind) in FILES.items()}
    spec = json.loads(files["/openapi.json"].content)
    return files | {"/docs": File(reference(files["/docs"].content, spec), HTML)}


def reference(template: str, spec: dict[str, Any]) -> str:
    """The page that shows an OpenAPI description: its paths, then its schemas."""
    paths = [
        operation(f"{method.upper()} {path}", facts)
        for path, methods in spec["paths"].items()
        for method, facts in methods.items()
    ]
    schemas = [schema(name, facts) for name, facts in spec["components"]["schemas"].items()]
    title, description = (html.escape(spec["info"][key]) for key in ("title", "description"))
    return Template(template).substitute(title=title, description=description, body="".join(paths + schemas))


def operation(name: str, facts: dict[str, Any]) -> str:
    content = facts.get("requestBody", {}).get("content", {})
    body = f"<p>Body: {', '.join(f'<code>{kind}</code>' for kind in content)}</p>" if content else ""
    query = [(of["name"], kinds(of["schema"]), of["description"]) for of in facts.get("parameters", [])]
    statuses = [(status, of["description"]) for status, of in facts["responses"].items()]
    parts = [
        f"<h2><code>{name}</code></h2>",
        f"<p><b>{html.escape(facts['summary'])}</b></p>",
        f"<p>{html.escape(facts.get('description', ''))}</p>",
        body,
        table(("In the query", "Type", "Meaning"), query),
        table(("Status", "Meaning"), statuses),
    ]
    return f"<section>{''.join(parts)}</section>"


def schema(name: str, facts: dict[str, Any]) -> str:
    rows = []
    for key, of in facts["properties"].items():
        rows.append((key, kinds(of), of.get("description", "")))
        rows += [(f"{key}.{inner}", kinds(o), o["description"]) for inner, o in of.get("properties", {}).items()]
    return f"<section><h2>{name}</h2>{table(('Key', 'Type', 'Meaning'), rows)}</section>"


def kinds(of: dict[str, Any]) -> str:
    """The type of a value, in words."""
    kind = of.get("type", "")
    return " or ".join(kind) if isinstance(kind, list) else kind


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """The first cell of each row is its name."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = ""
    for name, *cells in rows:
        others = "".join(f"<td>{html.escape(text)}</td>" for text in cells)
        body += f'<tr><th scope="row"><code>{name}</code></th>{others}</tr>'
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{heads[0]}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )

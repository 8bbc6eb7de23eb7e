"""Files that are there whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def write_text(path: Path, text: str) -> None:
    """Write to a temporary name and move into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    return read_record(path, remedy, dict)


def read_record(path: Path, remedy: str, kind: type[T]) -> T:
    """A JSON object as `kind`, a dataclass or a dict.

    Raises:
        ValueError: naming the file and the remedy, when it is missing, torn or has other keys.
    """
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from None

"""Identities by content: hashes of files, values and code, and random seeds derived from names."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def hash_value(value: Any) -> str:
    """SHA-256 of a JSON-able value; key order does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SOURCES = {".py", ".cpp"}
"""Suffixes of source files. Other files beside them (byte code, editors' copies) change no result."""


def hash_code(paths: Iterable[Path]) -> str:
    """SHA-256 over source files and, recursively, those in folders; file names count relative to each path."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.suffix in SOURCES) if path.is_dir() else [path]
        for file in files:
            digest.update(f"{path.name}/{file.relative_to(path)}:{hash_file(file)}\n".encode())
    return digest.hexdigest()


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose: streams with different names are unrelated, whatever the base seed."""
    return int(hash_value([seed, *names])[:16], 16) >> 1

"""Files at an address such as s3://bucket/folder, for machines that share no folder."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.tools.files import write_text


def is_address(location: str) -> bool:
    return "://" in location


class Remote:
    """A folder at an address that fsspec knows."""

    def __init__(self, address: str) -> None:
        """Raises:
        ValueError: no such kind of address, or its library is not installed.
        """
        import fsspec  # comes with torch

        self.address = address.rstrip("/")
        try:
            self._files, self._folder = fsspec.core.url_to_fs(self.address)
        except (ValueError, ImportError) as error:
            raise ValueError(f"{address} cannot be used: {error}") from None

    def fetch(self, folder: Path) -> int:
        """Copy the files here that are not here, or are shorter here: they only grow. How many files there are.

        Raises:
            ConnectionError: the address cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with self._named():
            self._files.invalidate_cache()
            found = self._files.glob(f"{self._folder}/*", detail=True)
            for path, facts in found.items():
                here = folder / Path(path).name
                if not here.exists() or here.stat().st_size < facts["size"]:
                    write_text(here, self._files.cat_file(path).decode())
        return len(found)

    def put(self, *files: Path) -> None:
        """Copy files there, each up to its last whole line.

        Raises:
            ConnectionError: the address cannot be written.
        """
        with self._named():
            self._files.makedirs(self._folder, exist_ok=True)
            for path in files:
                content = path.read_bytes()
                self._files.pipe_file(f"{self._folder}/{path.name}", content[: content.rfind(b"\n") + 1])

    @contextmanager
    def kept_up(self, *files: Path, seconds: float = 60.0) -> Iterator[None]:
        """Within the block copy growing files there, every so many seconds and at the end. Where that fails, it is said
        and tried again; only at the end it must not fail."""
        over = threading.Event()

        def copy_now_and_then() -> None:
            while not over.wait(seconds):
                try:
                    self.put(*files)
                except ConnectionError as error:
                    print(f"{error}; it is tried again", file=sys.stderr, flush=True)

        self.put(*files)
        thread = threading.Thread(target=copy_now_and_then, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.put(*files)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each kind of store raises errors of its own
            raise ConnectionError(f"{self.address} cannot be reached: {_line(error)}") from None


def _line(error: Any) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]

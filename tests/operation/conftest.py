"""What the tests of operation share."""

from collections.abc import Iterator

import pytest

from tests.support.prefect_server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("prefect"))
    yield server
    server.stop()

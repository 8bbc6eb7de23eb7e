"""The fixtures of tests/support/registry.py."""

from tests.support.registry import local, promotions, server, store, tracking  # noqa: F401

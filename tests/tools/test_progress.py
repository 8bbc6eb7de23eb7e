"""Lines of progress."""

import pytest

from components.tools.progress import pace


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(12345, "12,345/s"), (9.96, "10.0/s"), (1.0, "1.0/s"), (0.4, "2.5 s each"), (0.01, "100.0 s each"), (0, "0.0/s")],
)
def test_slow_work_says_how_long_one_unit_takes_instead_of_none_per_second(rate, shown):
    assert pace(rate) == shown

"""A project folder with code that a user brings."""

import textwrap

import pytest

LINEAR = """
    from torch import nn

    def build(image_shape, num_classes):
        channels, height, width = image_shape
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder that commands run in, empty: it is not on sys.path."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, **modules):
    """Files of Python source by their names, with __ for each folder."""
    for name, source in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

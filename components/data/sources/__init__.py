"""Where images come from: one function per source, each giving its images in memory or the files that hold them."""

from collections.abc import Callable
from pathlib import Path

from components.data.picture_forms import Form
from components.data.sources.array_files import arrays
from components.data.sources.class_folders import image_folder, imagenet
from components.data.sources.hugging_face import huggingface
from components.data.sources.path_table import table
from components.data.sources.published import cifar10, digits, mnist
from components.data.sources.source import FileSource, Source
from components.prepare import Prepare


def form_of(settings: Prepare) -> Form:
    """What a source of picture files brings every picture to."""
    return Form(settings.channels or 3, *settings.sides, settings.background_colour)


SOURCES: dict[str, Callable[[Prepare, Path], Source | FileSource]] = {
    "digits": lambda settings, root: digits(),
    "mnist": lambda settings, root: mnist(root, download=settings.download),
    "cifar10": lambda settings, root: cifar10(root, download=settings.download),
    "image_folder": lambda settings, root: image_folder(root, test_share=settings.test_share, form=form_of(settings)),
    "table": lambda settings, root: table(root, test_share=settings.test_share, form=form_of(settings)),
    "arrays": lambda settings, root: arrays(root, test_share=settings.test_share),
    "huggingface": lambda settings, root: huggingface(
        settings.root,
        root,
        download=settings.download,
        test_share=settings.test_share,
        form=form_of(settings),
    ),
    "imagenet": lambda settings, root: imagenet(root),
}
"""By name; each takes the settings of the prepare stage and the folder or archive that the files lie in."""

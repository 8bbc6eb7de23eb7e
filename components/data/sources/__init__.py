"""Where images come from: one function per source, each giving its images in memory or the files that hold them."""

from collections.abc import Callable
from pathlib import Path

from components.data.image_files import Form
from components.data.sources.class_folders import image_folder, imagenet
from components.data.sources.published import cifar10, digits, mnist
from components.data.sources.source import FileSource, Source
from components.params import Prepare

SOURCES: dict[str, Callable[[Prepare, Path], Source | FileSource]] = {
    "digits": lambda settings, root: digits(),
    "mnist": lambda settings, root: mnist(root, download=settings.download),
    "cifar10": lambda settings, root: cifar10(root, download=settings.download),
    "image_folder": lambda settings, root: image_folder(
        root,
        test_share=settings.test_share,
        form=Form(settings.channels or 3, *settings.sides, settings.background_colour),
    ),
    "imagenet": lambda settings, root: imagenet(root),
}
"""By name; each takes the settings of the prepare stage and the folder or archive that the files lie in."""

"""The section `prepare` of params.yaml: where images come from, and what they are brought to."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from components.parsing import Range

Side = Annotated[int, Range(least=8, most=1024)]
PixelValue = Annotated[int, Range(least=0, most=255)]


@dataclass(frozen=True)
class Prepare:
    source: Literal["digits", "mnist", "cifar10", "image_folder", "table", "arrays", "huggingface", "imagenet"]
    root: str | None = None
    """Folder of the source's files (own images: or an archive, a table, an .npz); null for digits, and null means
    data/raw with `download`. A relative path starts at the main checkout. For huggingface with `download`, a name."""
    download: bool = False
    """Download missing files."""
    test_share: Annotated[float, Range(above=0, below=1)] | None = None
    """Share of the images held out for certification, stratified by class; null where the source has a test split."""
    enlarge: Annotated[int, Range(least=1, most=32)] | None = None
    """Each pixel becomes a square of this side (pixel replication)."""
    image_size: Side | list[Side] | None = None
    """Side of the square that images of any size are resized and cropped to, or [height, width]."""
    channels: Literal[1, 2, 3, 4] | None = None
    """1 turns images into grey, 3 into RGB; 2 and 4 keep the opacity of grey and of RGB images as a channel."""
    background: PixelValue | list[PixelValue] | None = None
    """What shows where an image is transparent: a grey value or [red, green, blue], from 0 to 255; null is white."""

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width that `image_size` stands for."""
        size = self.image_size or 1
        return (size[0], size[1]) if isinstance(size, list) else (size, size)

    @property
    def background_colour(self) -> tuple[int, int, int]:
        colour = 255 if self.background is None else self.background
        return (colour[0], colour[1], colour[2]) if isinstance(colour, list) else (colour, colour, colour)


SOURCE_OPTIONS = {
    "digits": {"test_share", "enlarge"},
    "mnist": {"root", "download"},
    "cifar10": {"root", "download"},
    "image_folder": {"root", "test_share", "image_size", "channels", "background"},
    "table": {"root", "test_share", "image_size", "channels", "background"},
    "arrays": {"root", "test_share"},
    "huggingface": {"root", "download", "test_share", "image_size", "channels", "background"},
    "imagenet": {"root"},
}
"""The keys of `prepare` that each source takes; all others must be null, and `download` false."""


def prepare_problems(prepare: Prepare) -> list[str]:
    """Options that the source does not take, and missing ones that it needs."""
    source, takes = prepare.source, SOURCE_OPTIONS[prepare.source]
    problems = []
    for option in fields(Prepare):
        value = getattr(prepare, option.name)
        if option.name != "source" and option.name not in takes and value is not None and value is not False:
            nothing = "false" if option.name == "download" else "null"
            problems.append(
                f"prepare.{option.name} is {value!r}: {source} takes {', '.join(sorted(takes))} alone, "
                f"so set it to {nothing}"
            )
    needed = {"root"} if "root" in takes and (not prepare.download or source == "huggingface") else set()
    needed |= {"test_share", "enlarge"} if source == "digits" else takes & {"image_size", "channels"}
    problems += [
        f"prepare.{name} is null: {source} needs {_NEEDS[name]}"
        for name in sorted(needed)
        if getattr(prepare, name) is None
    ]
    if isinstance(prepare.image_size, list) and len(prepare.image_size) != 2:
        problems.append(f"prepare.image_size is {prepare.image_size}: must be one side, or [height, width]")
    if isinstance(prepare.background, list) and len(prepare.background) != 3:
        problems.append(f"prepare.background is {prepare.background}: must be a grey value, or [red, green, blue]")
    if prepare.background is not None and prepare.channels in (2, 4):
        problems.append(
            f"prepare.background is {prepare.background}: channels {prepare.channels} keep the opacity, "
            "so set it to null, or channels to 1 or 3"
        )
    if prepare.root == "":
        problems.append("prepare.root is '': must be a path, or null")
    if "://" in (prepare.root or ""):
        problems.append(
            f"prepare.root is {prepare.root!r}: must be a path: fetch it first, "
            f"`dvc import-url {prepare.root} data/NAME`, and set prepare.root to data/NAME"
        )
    return problems


_NEEDS = {
    "root": "the path of its files",
    "test_share": "the share of the images to hold out",
    "enlarge": "the side of a pixel, 1 for none",
    "image_size": "the side of the images in pixels, or [height, width]",
    "channels": "1 (grey), 3 (RGB), 2 or 4 (these with opacity)",
}

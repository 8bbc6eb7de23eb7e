"""Made splits with every kind of break, and the page that they give; nothing is checked by Great Expectations here."""

from dataclasses import dataclass, field

import numpy as np

from components.data.expectations import Broken, Place
from components.data.page.render import render
from components.data.prepared import Description, Split

HOSTILE = "<script>alert(1)</script>"
SIGMAS = {"0.25": 0.25, "1.0": 1.0}


@dataclass
class Made:
    """Two splits of random images, and a page of them."""

    classes: list[str] = field(default_factory=lambda: ["cat", HOSTILE, 'dog "&" fox'])
    side: int = 8
    per_class: int = 12
    unreadable: str = ""
    """Why no image can be read, if none can."""
    asked: list[Place] = field(default_factory=list)
    """The images that the page has read."""

    def __post_init__(self):
        labels = np.repeat(np.arange(len(self.classes)), self.per_class)
        names = [f"{label}/<b>{i}.png" for i, label in enumerate(labels)]
        self.splits = {
            name: Split(np.empty((0, 3, self.side, self.side)), labels, [f"{name}/{one}" for one in names])
            for name in ("train", "test")
        }
        self.pool = np.random.default_rng(0).random((16, 3, self.side, self.side))

    def image(self, place):
        self.asked.append(place)
        if self.unreadable:
            raise ValueError(self.unreadable)
        return self.pool[place.number % len(self.pool)]

    def twins(self, count):
        """A rule that rows of test break, each by its twin in train."""
        images = [[Place("test", i), Place("train", i + 1)] for i in range(count)]
        names = [[f"{place.split} image {place.number}" for place in pair] for pair in images]
        return Broken("test image that is also in train", [" = ".join(pair) for pair in names], True, images)

    def page(self, *broken):
        rules = [{"rule": rule.says, "column": "a", "checked": 100, "broken": rule.rows} for rule in broken]
        rules.append({"rule": "label without an image", "column": "b", "checked": 100, "broken": []})
        report = {"success": not any(rule.stops for rule in broken), "rules": rules}
        sizes = {"train_images": len(self.splits["train"]), "test_images": len(self.splits["test"])}
        values = {"image_shape": [3, self.side, self.side], "max_value": 255, "mean": None, "std": None}
        hashes = {"train_sha256": "a", "test_sha256": "b"}
        description = Description("image_folder", HOSTILE, self.classes, **values, **sizes, **hashes)
        settings = {"sigmas": SIGMAS, "min_class_share": 0.5, "image": self.image}
        return render(description, self.splits, list(broken), report, **settings)


BLANK = Broken("constant image", ["train image 3 (train/0/<b>3.png)"], True, [[Place("train", 3)]])
SCARCE = Broken("class with less than 0.5 of a balanced share", ["test class cat (1 image)"])

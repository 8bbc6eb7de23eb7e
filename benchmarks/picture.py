"""README's picture, from what `dvc repro` made: a test image, its noise, its certified ball, and all images' curve.

The map shows the plane through the image, the nearest image of another class that the attack found, and the nearest
test image of another class. Each point of it has the class that most of --noises noisy copies get, and the circle has
the radius of the image's row in the table of certificates.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from components import params
from components.certification import table
from components.certification.noise import noisy_copies
from components.certification.sampling import Sampler
from components.certification.table import display_radius
from components.data.prepared import load_description, load_split
from components.data.streaming import as_tensor, on_grid
from components.evaluation.attacked import Settings, attack, distance
from components.evaluation.plots import render_png
from components.model import weights
from components.tools.device import use_device
from components.training.attack import eval_mode
from components.training.smoothing import noisy_logits
from pipelines import artifacts

SIDE = 192
"""Of a panel, in points: a multiple of the cells of each picture, so that no seams show between them."""
INK, FAINT, GRID = "#1f2328", "#59636e", "#e6e8eb"
REGIONS = ["#cfe3fb", "#ffe0b8", "#d5efd0", "#f6d1e4", "#e3d8f5", "#fff3b0", "#d0eeee", "#f3d3cb", "#e4e4e4", "#dfe8c0"]
LINES = ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989"]
ATTACK = Settings(steps=40, noises=64, n=4000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sigma", type=float, default=0.5, help="of image, noise and ball (default: %(default)s)")
    parser.add_argument("--image", type=int, default=20, help="its idx in the table (default: %(default)s)")
    parser.add_argument("--noises", type=int, default=400, help="per point of the map (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/picture.png"), help="default: %(default)s")
    options = parser.parse_args()
    case = load_case(options.sigma, options.image)
    panels = [image_panel(case), noise_panel(case), ball_panel(case, options.noises), curve_panel()]
    render_png(side_by_side(panels), options.out)
    Image.open(options.out).convert("RGB").quantize(128).save(options.out, optimize=True)  # a tenth of the bytes
    print(f"written: {options.out}")


@dataclass(frozen=True)
class Case:
    """One certified test image."""

    sampler: Sampler
    image: Tensor
    """int32 (C, H, W), in steps of the grid."""
    row: dict[str, Any]
    """Of the table of certificates."""
    classes: list[str]
    seed: int
    failure_prob: float
    other: Tensor
    """The nearest test image of another class, as `image`."""

    @property
    def answer(self) -> str:
        return self.classes[self.row["predict"]]


def load_case(sigma: float, index: int) -> Case:
    """The image, its row in the table, and the network.

    Raises:
        ValueError: the table has no certified row of this image, or a stage has not run.
    """
    recipe, description = params.load(artifacts.PARAMS), load_description(artifacts.DESCRIPTION)
    split, certificates = load_split(artifacts.TEST_SPLIT), table.read(artifacts.certificates(sigma))
    rows: Any = certificates[(certificates["idx"] == index) & (certificates["radius"] > 0)].to_dict("records")
    if not rows:
        raise ValueError(f"--image is {index}: {artifacts.certificates(sigma)} certifies no image of this idx")
    network, card = weights.load(artifacts.model(sigma), use_device(threads=1))
    shape, classes = tuple(card.image_shape), len(card.classes)
    sampler = Sampler(network, sigma, grid=card.grid, image_shape=shape, num_classes=classes, precision=card.precision)
    images = on_grid(as_tensor(split.images), description.max_value, card.grid)
    others = images[torch.from_numpy(split.labels != rows[0]["predict"])]
    nearest = others[(others - images[index]).double().flatten(1).norm(dim=1).argmin()]
    return Case(
        sampler, images[index], rows[0], list(card.classes), recipe.seed, recipe.certify.failure_prob, other=nearest
    )


def panel(title: str, subtitle: list[str], **spec: Any) -> dict[str, Any]:
    return {"width": SIDE, "height": SIDE, "title": {"text": title, "subtitle": subtitle}, **spec}


def pixels_layer(pixels: np.ndarray) -> dict[str, Any]:
    """Grey pixels (H, W), 1 drawn as ink."""
    records = [{"x": x, "y": y, "value": float(value)} for (y, x), value in np.ndenumerate(pixels)]
    scale = {"domain": [0, 1], "range": ["#ffffff", "#101418"], "clamp": True}
    place: dict[str, Any] = {"type": "ordinal", "axis": None, "scale": {"padding": 0}}
    encoding = {
        "x": {"field": "x", **place},
        "y": {"field": "y", **place},
        "color": {"field": "value", "type": "quantitative", "scale": scale, "legend": None},
    }
    return {"data": {"values": records}, "mark": "rect", "encoding": encoding}


def image_panel(case: Case) -> dict[str, Any]:
    pixels = case.image[0].numpy() / case.sampler.grid
    height, width = pixels.shape
    said = [f"a {case.answer} among the test images:", f"{width} × {height} values from 0 to 1"]
    return panel("1. An image", said, **pixels_layer(pixels))


def noise_panel(case: Case) -> dict[str, Any]:
    """The first four noisy copies of the image, as the network sees them."""
    index = case.row["idx"]
    copies, _ = noisy_copies(case.image, case.sampler.normal, seed=case.seed, index=index, start=0, stop=4)
    height, width = copies.shape[2:]
    mosaic = copies[:, 0].reshape(2, 2, height, width).swapaxes(1, 2).reshape(2 * height, 2 * width)
    gaps = [gap("x", "y"), gap("y", "x")]
    hits = int(case.row["counts"].split()[case.row["predict"]])
    said = [f"the network answers {case.answer}", f"on {hits:,} of {case.row['n']:,} noisy copies"]
    return panel(f"2. Noise of σ = {case.sampler.sigma:g}", said, layer=[pixels_layer(mosaic.numpy()), *gaps])


def gap(across: str, along: str) -> dict[str, Any]:
    """A white stripe through the middle of a panel."""
    places = {across: SIDE / 2 - 3, f"{across}2": SIDE / 2 + 3, along: 0, f"{along}2": SIDE}
    encoding = {name: {"value": place} for name, place in places.items()}
    return {"data": {"values": [{}]}, "mark": {"type": "rect", "fill": "#ffffff"}, "encoding": encoding}


def ball_panel(case: Case, noises: int) -> dict[str, Any]:
    """The plane through the image, the attack's image and the other class's image, with the certified ball."""
    with eval_mode(case.sampler.network) as classifier:
        steps, classes = map_classes(case, classifier, noises)
    radius = display_radius(case.row["radius"])
    said = [f"within L2 {radius} every image gets the", f"answer {case.answer} (wrong with p ≤ {case.failure_prob:g})"]
    return panel("3. Its certified ball", said, layer=ball_layers(case, steps, classes))


def map_classes(case: Case, classifier: nn.Module, noises: int, points: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """The class at each point of the plane: positions (points,) on either axis, and classes (points, points)."""
    sampler, x, label = case.sampler, case.image.double(), case.row["predict"]
    found = attack(sampler, classifier, case.image, label, seed=1, index=case.row["idx"], settings=ATTACK)
    found = case.other if found is None else found
    across = unit(found - x)
    up = unit(case.other - x - ((case.other - x) * across).sum() * across)
    reach = 2 * max(distance(case.image, found, sampler.grid), case.row["radius"])
    steps = np.linspace(-reach, reach, points)
    noise = sampler.sigma * torch.randn(noises, 1, *x.shape, generator=torch.Generator().manual_seed(case.seed))
    classes = np.empty((points, points), dtype=int)
    with torch.inference_mode():
        for row, v in enumerate(steps):
            line = torch.stack([x / sampler.grid + u * across + v * up for u in steps]).float()
            votes = noisy_logits(classifier, line, noise.expand(-1, points, *x.shape)).argmax(-1)
            classes[row] = votes.mode(dim=0).values.numpy()
    return steps, classes


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(1e-9)


def ball_layers(case: Case, steps: np.ndarray, classes: np.ndarray) -> list[dict[str, Any]]:
    """The map, the circle, its centre, and the names of the larger regions."""
    half, radius = (steps[1] - steps[0]) / 2, case.row["radius"]
    scale = {"domain": [steps[0] - half, steps[-1] + half], "nice": False}
    axes = {name: {"field": name, "type": "quantitative", "axis": None, "scale": scale} for name in ("x", "y")}
    ends = {"x2": {"field": "x2"}, "y2": {"field": "y2"}}
    color = {"field": "class", "type": "nominal", "scale": {"domain": case.classes, "range": REGIONS}, "legend": None}
    cells = []
    for (row, column), c in np.ndenumerate(classes):
        x, y = steps[column], steps[row]
        cells.append({"x": x - half, "x2": x + half, "y": y - half, "y2": y + half, "class": case.classes[c]})
    names = [{"x": 0.0, "y": 0.4 * radius, "text": case.answer}]
    for c in set(np.unique(classes)) - {case.row["predict"]}:
        rows, columns = np.nonzero(classes == c)
        if len(rows) > classes.size / 40:
            names.append({"x": steps[columns].mean(), "y": steps[rows].mean(), "text": case.classes[c]})
    angles = np.linspace(0, 2 * np.pi, 181)
    circle = [{"x": radius * np.cos(a), "y": radius * np.sin(a), "order": k} for k, a in enumerate(angles)]
    line = {"type": "line", "stroke": INK, "strokeWidth": 2, "fill": None}
    text = {"type": "text", "fontSize": 20, "fontWeight": "bold", "fill": INK}
    return [
        {"data": {"values": cells}, "mark": "rect", "encoding": {**axes, **ends, "color": color}},
        {"data": {"values": circle}, "mark": line, "encoding": {**axes, "order": {"field": "order"}}},
        {"data": {"values": [{"x": 0, "y": 0}]}, "mark": {"type": "circle", "fill": INK, "size": 45}, "encoding": axes},
        {"data": {"values": names}, "mark": text, "encoding": {**axes, "text": {"field": "text"}}},
    ]


def curve_panel() -> dict[str, Any]:
    """Certified accuracy over the radius, per noise level, as `evaluate` wrote it."""
    curves = pd.read_csv(artifacts.CURVES)
    curves["sigma"] = curves["sigma"].map("{:g}".format)
    levels = list(dict.fromkeys(curves["sigma"]))
    plain = {"titleColor": FAINT, "titleFontWeight": "normal", "labelColor": FAINT, "gridColor": GRID, "tickCount": 5}
    legend = {"orient": "top-right", "title": "σ", "symbolType": "stroke", "symbolStrokeWidth": 3}
    shares = {**plain, "format": "%", "values": [0, 0.2, 0.4, 0.6, 0.8]}
    encoding = {
        "x": {"field": "radius", "type": "quantitative", "title": "L2 radius", "axis": plain},
        "y": {
            "field": "certified_accuracy",
            "type": "quantitative",
            "title": None,
            "axis": shares,
            "scale": {"domain": [0, 1]},
        },
        "color": {"field": "sigma", "type": "nominal", "scale": {"domain": levels, "range": LINES}, "legend": legend},
    }
    data, mark = {"values": curves.to_dict("records")}, {"type": "line", "strokeWidth": 2.2}
    said = ["share answered right with a", "certificate of at least this radius"]
    return panel("4. All test images", said, data=data, mark=mark, encoding=encoding)


def side_by_side(panels: list[dict[str, Any]]) -> dict[str, Any]:
    """The panels on a white card, which a dark page shows as well as a light one."""
    title = {"color": INK, "fontSize": 15, "subtitleColor": FAINT, "subtitleFontSize": 12, "subtitlePadding": 4}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": "#ffffff",
        "padding": 16,
        "spacing": 34,
        "hconcat": panels,
        "resolve": {"scale": {"color": "independent", "x": "independent", "y": "independent"}},
        "config": {
            "font": "Helvetica, Arial, sans-serif",
            "view": {"stroke": GRID},
            "title": {**title, "anchor": "start", "frame": "group", "offset": 12},
        },
    }


if __name__ == "__main__":
    main()

"""benchmarks.picture on the kept run of the digits."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import picture
from components import params
from pipelines import artifacts, prepare

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "results/digits/smoothmix/0.5/outputs"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with what `dvc repro` makes."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "recipes/digits.yaml", artifacts.PARAMS)
    prepare.run(params.load(artifacts.PARAMS))
    shutil.copytree(KEPT / "models/0.5", artifacts.model(0.5))
    artifacts.certificates(0.5).parent.mkdir(parents=True)
    artifacts.certificates(0.5).write_bytes(gzip.decompress((KEPT / "certificates/0.5/table.tsv.gz").read_bytes()))
    artifacts.CURVES.parent.mkdir(parents=True)
    artifacts.CURVES.write_text("sigma,radius,certified_accuracy,largest_radius\n0.5,0.0,0.9,1.6\n0.5,1.5,0.2,1.6\n")
    return tmp_path


@pytest.mark.medium
def test_the_map_has_the_certified_class_in_the_whole_ball(run):
    case = picture.load_case(0.5, 20)
    with picture.eval_mode(case.sampler.network) as classifier:
        steps, classes = picture.map_classes(case, classifier, noises=50, points=16)
    distances = np.hypot(steps[:, None], steps[None, :])
    inside = classes[distances <= case.row["radius"]]
    assert len(inside) > 10
    assert set(inside) == {case.row["predict"]}
    assert len(set(classes.ravel())) > 1, "the attack's side of the border is on the map"


@pytest.mark.medium
def test_the_picture_is_drawn_and_small(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["picture", "--noises", "1", "--out", "picture.png"])
    monkeypatch.setattr(picture, "ATTACK", picture.Settings(steps=2, noises=4, n=500))
    picture.main()
    assert capsys.readouterr().out == "written: picture.png\n"
    width, height = Image.open("picture.png").size
    assert width > 2 * height > 800
    assert Path("picture.png").stat().st_size < 100_000


def test_an_image_without_a_certificate_is_refused_by_its_number(run):
    with pytest.raises(ValueError, match=r"--image is 450: outputs/certificates/0\.5/table\.tsv certifies no image"):
        picture.load_case(0.5, 450)

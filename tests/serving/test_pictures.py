"""Pictures over HTTP: what they become, how the answer says so, and what is refused."""

import base64
import dataclasses
import json
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from components.data.picture_forms import Form, read_picture
from components.data.sources.class_folders import IMAGENET_MEAN, decode_into
from components.serving import pictures
from components.serving.app import ServiceLimits, create_app
from components.serving.pictures import data_url, images_of_pictures, picture_rule
from tests.support.serving import ANSWER, SHAPE, ask, running, some_images


def picture(size=(40, 30), mode="RGB", kind="PNG", **options):
    """A picture of noise, as bytes."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels.squeeze(), mode).save(file, kind, **options)
    return file.getvalue()


def animation(kind):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    file = BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def claiming(width, height):
    """A PNG of a few bytes that claims any size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def send(client, data, kind="image/png", **query):
    return client.post("/invocations", content=data, headers={"content-type": kind}, params=query)


def url_of(data):
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(("kind", "name"), [("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/webp", "WEBP")])
def test_a_picture_as_bytes_gets_a_certificate_and_the_rule_by_which_it_was_resized(client, kind, name):
    answer = send(client, picture(kind=name), kind, n=300)
    assert answer.status_code == 200
    (prediction,) = answer.json()["predictions"]
    assert set(prediction) == {*ANSWER, "resized"}
    assert prediction["n"] == 300
    assert not prediction["rounded"], "it is on the grid"
    assert prediction["resized"] == "40x30 to 16x16: shorter side to 16, centre crop; as grey"
    assert answer.json()["params"] == {"n": 300, "failure_prob": 0.001, "radius": None}
    assert answer.json()["seconds"] > 0


def test_a_picture_is_what_the_preparation_of_an_image_folder_makes_of_it(classifier, tmp_path):
    for index, data in enumerate((picture(), picture((30, 41), "RGBA"), picture((16, 16), "L", "JPEG"))):
        (tmp_path / f"{index}").write_bytes(data)
        prepared = np.empty((1, *SHAPE), dtype=np.uint8)
        assert decode_into(prepared, tmp_path, [f"{index}"], Form(*SHAPE)) == []
        images, _ = images_of_pictures([data], classifier.card)
        assert torch.equal((images * 255).round().byte(), torch.from_numpy(prepared))


OPACITY = np.random.default_rng(1).integers(0, 256, (30, 40, 4), dtype=np.uint8)
DEEP = np.random.default_rng(2).integers(0, 65536, (30, 40), dtype=np.uint16)


def png(pixels):
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("form", "pixels", "rule"),
    [
        (
            Form(3, 16, 24, background=(9, 0, 200)),
            OPACITY,
            "40x30 to 24x16: resized to cover 24x16, centre crop; as RGB, transparent pixels on RGB 9 0 200",
        ),
        (Form(4, 16, 16), OPACITY, "40x30 to 16x16: shorter side to 16, centre crop; as RGB with opacity"),
        (Form(1, 16, 16, bits=16), DEEP, "40x30 to 16x16: shorter side to 16, centre crop; as grey, of 16 bits"),
        (Form(3, 16, 16, cover=(20, 20)), OPACITY[..., :3], "40x30 to 16x16: shorter side to 20, centre crop; as RGB"),
    ],
)
def test_a_picture_becomes_what_the_card_says(classifier, form, pixels, rule):
    """Which is what the preparation of that form makes of it."""
    facts = {"image_shape": list(form.shape), "grid": form.max_value, "pictures": form.rule}
    card = dataclasses.replace(classifier.card, **facts)
    images, (said,) = images_of_pictures([png(pixels)], card)
    expected = read_picture(png(pixels), form)
    assert torch.equal((images[0] * form.max_value).round().int(), torch.from_numpy(expected.astype(np.int32)))
    assert said == rule
    assert picture_rule(card) == rule.partition(": ")[2].replace("crop", f"crop to {form.width}x{form.height}")


def test_a_picture_without_the_opacity_that_the_card_asks_for_gets_one_line(classifier):
    card = dataclasses.replace(classifier.card, image_shape=[4, 16, 16], pictures=Form(4, 16, 16).rule)
    with pytest.raises(ValueError, match=r"^image 0 \(40x30 pixels\) cannot be used: no opacity, which images of 4"):
        images_of_pictures([picture()], card)


def test_an_imagenet_model_sees_the_usual_test_view(classifier):
    card = dataclasses.replace(classifier.card, image_shape=[3, 224, 224], mean=IMAGENET_MEAN)
    images, (rule,) = images_of_pictures([picture((300, 400))], card)
    assert images.shape == (1, 3, 224, 224)
    assert rule == "300x400 to 224x224: shorter side to 256, centre crop; as RGB"


def test_on_a_grid_that_has_not_all_8_bits_values_go_to_the_nearest_step(classifier):
    card = dataclasses.replace(classifier.card, grid=256)
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    images, (rule,) = images_of_pictures([base64.b64decode(data_url(grey).partition(",")[2])], card)
    steps = images.flatten().double() * 256
    assert torch.equal(steps, steps.round())
    assert (steps / 256 - torch.arange(256) / 255).abs().max() <= 0.5 / 256
    assert (steps[0], steps[-1]) == (0, 256)
    assert rule == "16x16, as the model's images: not resized; as grey; values to the nearest of 256 steps"


def test_data_urls_are_pictures_too(client):
    answer = ask(client, inputs=[url_of(picture()), url_of(picture((16, 16), "L"))], params={"n": 300, "radius": 0.125})
    assert answer.status_code == 200
    rules = [prediction["resized"] for prediction in answer.json()["predictions"]]
    assert [rule.split(":")[0] for rule in rules] == ["40x30 to 16x16", "16x16, as the model's images"]
    assert answer.json()["params"]["radius"] == 0.125


def test_numbers_are_not_said_to_be_resized(client):
    assert set(ask(client).json()["predictions"][0]) == set(ANSWER)


def test_the_image_its_noisy_copies_and_the_votes_are_shown_where_asked_for(client, classifier):
    shown = send(client, picture(), n=300, show=5).json()["shown"]
    assert [vote["class_name"] for vote in shown["votes"]] == classifier.card.classes
    assert sum(vote["count"] for vote in shown["votes"]) == 300
    assert len(shown["copies"]) == 5
    assert {copy["class_name"] for copy in shown["copies"]} <= set(classifier.card.classes)
    seen = Image.open(BytesIO(base64.b64decode(shown["image"].partition(",")[2])))
    expected, _ = images_of_pictures([picture()], classifier.card)
    assert torch.equal(torch.from_numpy(np.array(seen)), (expected[0, 0] * 255).round().byte())
    numbers = client.post("/invocations?show=0", json={"inputs": some_images(1).tolist()}).json()["shown"]
    assert (numbers["copies"], len(numbers["votes"])) == ([], 3)


def test_the_copies_shown_are_those_that_voted(client):
    """With as few samples as copies, the classes below the copies are the votes."""
    shown = send(client, picture(), n=12, failure_prob=0.01, show=12).json()["shown"]
    names = [copy["class_name"] for copy in shown["copies"]]
    assert {vote["class_name"]: vote["count"] for vote in shown["votes"]} == {name: names.count(name) for name in "abc"}


LARGE = claiming(5000, 5000)


@pytest.mark.parametrize(
    ("data", "query", "status", "sentence"),
    [
        (b"", {}, 400, "image 0 is no PNG, JPEG or WebP that can be read"),
        (b"no picture", {}, 400, "image 0 is no PNG, JPEG or WebP that can be read"),
        (picture()[:200], {}, 400, "image 0 (40x30 pixels) cannot be used: "),
        (picture(kind="GIF", mode="L"), {}, 400, "image 0 is no PNG, JPEG or WebP that can be read"),
        (picture(kind="BMP"), {}, 400, "image 0 is no PNG, JPEG or WebP that can be read"),
        (animation("PNG"), {}, 400, "image 0 is animated: send a single frame"),
        (animation("WEBP"), {}, 400, "image 0 is animated: send a single frame"),
        (picture((500, 4)), {}, 400, "image 0 (500x4 pixels) cannot be used: 500x4 pixels, more than 100 times"),
        (LARGE, {}, 413, "image 0 has 5000x5000 pixels: the limit of a request is 16777216 pixels in all"),
        (claiming(50_000, 50_000), {}, 413, "image 0 has far more pixels than the limit of 16777216 in all"),
        (claiming(2000, 2000), {}, 400, "image 0 (2000x2000 pixels) cannot be used: "),
        (b"x" * 100_001, {}, 413, "the request is larger than the limit of 100000 bytes"),
        (picture(), {"n": "many"}, 400, "n is 'many': must be a whole number"),
        (picture(), {"n": "1e3"}, 400, "n is '1e3': must be a whole number"),
        (picture(), {"radius": "far"}, 400, "radius is 'far': must be a number"),
        (picture(), {"radius": "nan"}, 400, "radius is nan: must be a number that is not negative"),
        (picture(), {"radius": "9"}, 400, "radius 9.0 cannot be certified"),
        (picture(), {"sigma": "1"}, 400, "the query has 'sigma': it may have show, n, failure_prob, radius"),
        (picture(), {"show": "13"}, 400, "show is 13: must be from 0 to 12"),
        (picture(), {"show": "-1"}, 400, "show is -1: must be from 0 to 12"),
    ],
)
def test_a_picture_that_cannot_be_used_gets_one_line(client, lines, data, query, status, sentence):
    answer = send(client, data, **query)
    assert (answer.status_code, list(answer.json())) == (status, ["message"])
    assert answer.json()["message"].startswith(sentence)
    assert "\n" not in answer.json()["message"]
    assert len(answer.json()["message"]) < 250
    (line,) = lines
    assert line["message"] == answer.json()["message"]


@pytest.mark.parametrize(
    ("inputs", "status", "sentence"),
    [
        (["data:image/png;base64,####"], 400, "image 0 is a data URL whose base64 is broken"),
        (["data:image/gif;base64,AAAA"], 400, "image 0 is no data URL of a PNG, JPEG or WebP"),
        (["data:image/png,AAAA"], 400, "image 0 is no data URL"),
        (["https://example.org/picture.png"], 400, "image 0 is no data URL"),
        ([url_of(picture()), "file:///etc/passwd"], 400, "image 1 is no data URL"),
        ([url_of(picture()), 0.5], 400, "inputs must be all data URLs of pictures or all numbers"),
        ([url_of(picture())] * 5, 400, "5 images in one request: the limit is 4 images"),
        ([url_of(claiming(3000, 3000))] * 2, 413, "image 1 has 3000x3000 pixels: the limit of a request is 16777216"),
    ],
)
def test_a_data_url_that_cannot_be_used_gets_one_line(client, inputs, status, sentence):
    answer = ask(client, inputs=inputs)
    assert (answer.status_code, answer.json()["message"][: len(sentence)]) == (status, sentence)


def test_several_images_are_not_shown(client):
    answer = client.post("/invocations?show=2", json={"inputs": some_images(2).tolist()})
    assert answer.json()["message"] == "show is for one image of 1 to 4 channels, and this request has 2 images"


def test_other_content_types_are_refused_with_those_that_are_read(client):
    for kind in ("image/gif", "image/svg+xml", "multipart/form-data", "application/octet-stream"):
        answer = send(client, picture(), kind)
        assert answer.status_code == 415
        assert "application/json or one of image/png, image/jpeg, image/webp" in answer.json()["message"]


def test_a_model_whose_images_no_picture_becomes_says_so(classifier):
    card = dataclasses.replace(classifier.card, image_shape=[2, 16, 16])
    with pytest.raises(ValueError, match="the model's images have 2 channels: send them as numbers"):
        images_of_pictures([picture()], card)


def test_a_picture_of_exactly_the_size_fits_a_model_whose_images_are_not_square(classifier):
    card = dataclasses.replace(classifier.card, image_shape=[3, 16, 20])
    images, _ = images_of_pictures([picture((20, 16))], card)
    assert images.shape == (1, 3, 16, 20)


@pytest.mark.medium
def test_a_picture_may_be_larger_than_numbers_may(classifier):
    """A photograph takes more bytes than the small image that it becomes."""
    large = picture((700, 700))
    assert len(large) > 1_000_000
    with running(create_app(classifier)) as client:
        assert send(client, large, n=50).status_code == 200
        assert ask(client, inputs=[url_of(large)]).status_code == 413
        assert client.get("/card").json()["limits"]["picture_bytes"] == pictures.MAX_BYTES
    with running(create_app(classifier, limits=ServiceLimits(request_bytes=1000))) as client:
        assert send(client, large).json() == {"message": "the request is larger than the limit of 1000 bytes"}
        assert client.get("/card").json()["limits"]["picture_bytes"] == 1000
        json.loads(client.get("/examples").text)

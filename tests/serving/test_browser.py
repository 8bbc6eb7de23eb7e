"""The page in a real browser, from a picture to its certificate: the real service of a registered model."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from components.certification.classifier import SmoothedClassifier
from components.serving.app import create_app
from tests.support.chromium import browsing
from tests.support.registered import app_of, registry  # noqa: F401
from tests.support.serving import SHAPE, make_classifier, running

pytestmark = pytest.mark.medium

TOKEN = "correct horse battery"
STATE = "document.body.dataset.state"
VERDICT = "document.getElementById('verdict').textContent"
CONTRAST = """
(() => {
  const light = (c) => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
  };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility() || e.disabled) continue;
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push(e.textContent);
  }
  return low;
})()
"""
"""The texts whose contrast with what is behind them is below 4.5, the minimum of WCAG 2 AA."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "photo of a cat.png"
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def page(browser, registry, monkeypatch):  # noqa: F811
    """The page of the service, ready for an image."""
    with running(app_of(registry, monkeypatch)) as client:
        browser.events.clear()
        browser.look(1280)
        browser.open(f"{client.base_url}/")
        browser.wait_for(f"{STATE} === 'empty'")
        yield browser
        assert browser.complaints() == []
        browser.open("about:blank")
        hosts = {url.split("/")[2] for url in browser.requested() if not url.startswith(("data:", "blob:"))}
        assert hosts == {client.base_url.netloc.decode()}


def answered(page):
    page.wait_for(f"{STATE} === 'answered'")
    return page.run(VERDICT)


def text(page, name):
    return page.run(f"document.getElementById({name!r}).innerText")


def test_a_dropped_picture_gets_its_certificate(page, picture):
    page.drop("#drop", picture)
    assert answered(page).startswith("Class ant, certified within L2 radius 1.")
    assert text(page, "resized") == "40x30 to 16x16: shorter side to 16, centre crop; as grey"
    assert "photo of a cat.png" in text(page, "drop-text")
    figures = text(page, "figures")
    assert all(said in figures for said in ("at least 0.", "at most 0.", "2,000", "trial version 1", " s"))
    assert page.run("document.querySelectorAll('#votes tbody tr').length") == 3
    votes = page.run("[...document.querySelectorAll('#votes tbody td:nth-child(3)')].map(c => c.textContent)")
    assert sum(int(vote.replace(",", "")) for vote in votes) == 2000
    loaded = "i => i.complete && i.naturalWidth > 0"
    assert page.run(f"[...document.querySelectorAll('#copies img, #seen, #preview')].filter({loaded}).length") == 10
    card = text(page, "card")
    assert all(said in card for said in ("trial", "0.5", "ant, bee, cat", "two-class", "exact", "0.250", "75.0 %"))
    assert text(page, "version") == "version 1"


def test_a_chosen_file_and_another_number_of_copies(page, picture):
    page.choose("#file", picture)
    answered(page)
    page.run("{ const s = document.getElementById('samples'); s.value = '1000'; s.dispatchEvent(new Event('change')) }")
    page.wait_for("document.getElementById('figures').innerText.includes('1,000')")
    assert answered(page)


def test_a_pasted_picture(page):
    page.run("""
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 20;
        canvas.toBlob((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], "pasted.png", { type: "image/png" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        });
    """)
    answered(page)
    assert text(page, "resized").startswith("20x20 to 16x16")


def test_a_drawing(page):
    page.run("document.getElementById('draw').click()")
    x, y = page.middle("#canvas")
    page.drag([(x - 50, y - 50), (x, y), (x + 50, y + 50)])
    drawn = "document.getElementById('canvas').getContext('2d').getImageData(140, 140, 1, 1).data[0]"
    assert page.run(drawn) == 255
    page.run("document.getElementById('certify-drawing').click()")
    answered(page)
    assert text(page, "resized").startswith("280x280 to 16x16")


def test_the_slider_says_what_is_certified_and_asks_about_one_radius(page, picture):
    page.drop("#drop", picture)
    answered(page)
    given = page.run("answer.predictions[0].radius")

    def move(value):
        page.run(
            f"{{ const s = document.getElementById('radius'); s.value = {value}; s.dispatchEvent(new Event('input')) }}"
        )
        return page.run("chosen()"), text(page, "within"), text(page, "means")

    for value in range(0, page.run("Number(document.getElementById('radius').max)") + 1, 3):
        radius, within, means = move(value)
        assert within == ("✓ Certified" if radius <= given > 0 else "✗ Not certified")
        assert "of 255" in means or radius == 0
    move(2)
    page.run("document.getElementById('ask-radius').click()")
    page.wait_for("document.getElementById('figures').innerText.includes('the radius 0.1 only')")
    assert page.run("answer.params.radius") == 0.1


def test_an_abstention_claims_nothing(browser, tmp_path):
    """Mid-grey lies on the boundary of two half-spaces: each has half the votes."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(SHAPE), 3))
    with torch.no_grad():
        network[1].weight[:] = torch.tensor([[1.0], [-1.0], [0.0]])
        network[1].bias[:] = torch.tensor([-1.0, 1.0, -1000.0]) * math.prod(SHAPE) * 128 / 255
    known = make_classifier()
    Image.new("L", SHAPE[1:], 128).save(tmp_path / "grey.png")
    with running(create_app(SmoothedClassifier(network, known.card, origin=known.origin, n=1000))) as client:
        browser.open(f"{client.base_url}/")
        browser.wait_for(f"{STATE} === 'empty'")
        browser.drop("#drop", tmp_path / "grey.png")
        assert answered(browser) == "Abstains: nothing is claimed"
        assert text(browser, "within") == "✗ Not certified"
        assert browser.run("document.querySelectorAll('tr.answer').length") == 0
        browser.run("document.getElementById('ask-radius').click()")
        browser.wait_for(f"{STATE} === 'answered' && {VERDICT} === 'Not certified within 0.25'")


def test_what_cannot_be_used_is_said_and_the_next_picture_is_answered(page, picture, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:300])
    page.drop("#drop", broken)
    page.wait_for(f"{STATE} === 'refused'")
    assert text(page, "refusal").startswith("image 0 (40x30 pixels) cannot be used:")
    notes = tmp_path / "notes.txt"
    notes.write_text("no picture")
    page.drop("#drop", notes)
    page.wait_for("document.getElementById('refusal').innerText.includes('notes.txt is no image')")
    page.drop("#drop", picture)
    answered(page)
    assert text(page, "refusal") == ""


def test_the_token_is_asked_for_once(browser, registry, monkeypatch, picture):  # noqa: F811
    with running(app_of(registry, monkeypatch, token=TOKEN)) as client:
        browser.look(1280)
        browser.open(f"{client.base_url}/")
        browser.wait_for(f"{STATE} === 'token'")
        enter = "document.getElementById('token-text').value = {!r}; document.querySelector('#token button').click()"
        browser.run(enter.format("wrong"))
        browser.wait_for("document.getElementById('token-hint').innerText === 'That is not the token.'")
        browser.run(enter.format(TOKEN))
        browser.wait_for(f"{STATE} === 'empty'")
        browser.drop("#drop", picture)
        answered(browser)
        browser.open(f"{client.base_url}/#again")
        browser.run("location.reload()")
        browser.wait_for(f"{STATE} === 'empty'")
        assert browser.run("localStorage.length + document.cookie.length") == 0


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_light_and_dark(page, picture, width, dark):
    page.look(width, dark=dark)
    page.drop("#drop", picture)
    answered(page)
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run(CONTRAST) == []


def test_it_can_be_used_by_keyboard_and_every_part_has_a_name(page, picture):
    page.choose("#file", picture)
    answered(page)
    page.run("document.activeElement.blur(); scrollTo(0, 0)")
    reached = []
    for _ in range(12):
        page.press("Tab", 9)
        reached.append(page.run("document.activeElement.id || document.activeElement.className"))
    assert reached[0] == "skip"
    assert {"choose", "draw", "samples", "again", "radius", "ask-radius"} <= set(reached)
    before = page.run("document.getElementById('radius').value")
    page.run("document.getElementById('radius').focus()")
    page.press("ArrowRight", 39)
    assert int(page.run("document.getElementById('radius').value")) == int(before) + 1
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    shown = [node for node in nodes if not node.get("ignored")]
    named = ("button", "slider", "combobox", "image", "checkbox", "region", "table", "link", "columnheader")
    for node in shown:
        if node["role"]["value"] in named:
            assert node["name"]["value"], node
    headings = page.run("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))


def test_the_page_about_the_api_fits_a_phone_too(page):
    page.look(390)
    page.open(page.run("location.origin") + "/docs")
    assert page.run("document.documentElement.scrollWidth") == 390
    assert page.run("document.querySelectorAll('section').length") >= 9
    assert page.run(CONTRAST) == []

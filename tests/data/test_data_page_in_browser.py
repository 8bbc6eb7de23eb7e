"""The page of the prepared data in a real browser: light and dark, on a desk and on a phone."""

import pytest
from PIL import Image

from tests.support.chromium import browsing
from tests.support.data_pages import BLANK, SCARCE, Made

pytestmark = pytest.mark.medium
SECTIONS = ["finding", "broken", "expectations", "classes", "samples", "noise", "facts"]
LOOK = """
new Promise((done) => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  setTimeout(() => done({
    sections: [...document.querySelectorAll("main > section")].map(
      (part) => [part.id, part.getBoundingClientRect().height, part.innerText.length]),
    pictures: document.images.length,
    undrawn: [...document.images].filter((one) => !one.naturalWidth || one.getBoundingClientRect().width < 20).length,
    beyond: [...document.querySelectorAll("main *")].filter((part) => !part.closest(".scroll, .hidden"))
      .filter((part) => part.getBoundingClientRect().right > innerWidth + 1).map((part) => part.outerHTML.slice(0, 80)),
    wide: document.documentElement.scrollWidth,
    colors: ["backgroundColor", "color"].map((name) => getComputedStyle(document.body)[name].match(/\\d+/g)
      .slice(0, 3).reduce((sum, value) => sum + Number(value), 0)),
  }), 300);
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Made(classes=["cat", "a very long class name without end " * 3, "<b>dog</b>", *map(str, range(60))])
    file = tmp_path_factory.mktemp("page") / "data.html"
    file.write_text(made.page(made.twins(40), BLANK, SCARCE), encoding="utf-8")
    with browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page, file


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desktop, light", "phone, dark"])
def test_all_of_it_shows_and_nothing_is_asked_for(browser, width, dark, tmp_path):
    page, file = browser
    page.look(width, dark=dark)
    page.open(file.as_uri())
    seen = page.run(LOOK)
    assert [name for name, _, _ in seen["sections"]] == SECTIONS
    assert all(height > 60 and characters > 60 for _, height, characters in seen["sections"])
    assert seen["pictures"] > 400
    assert seen["undrawn"] == 0
    assert seen["beyond"] == []
    assert seen["wide"] <= width
    paper, ink = seen["colors"]
    assert (paper < ink) == dark
    assert page.complaints() == []
    assert {address.split(":")[0] for address in page.requested()} <= {"file", "data"}
    page.screenshot(tmp_path / "shot.png")
    with Image.open(tmp_path / "shot.png") as shot:
        assert shot.width == width

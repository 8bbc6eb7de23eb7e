"""The report page in a real browser: everything shows, nothing is asked for, nothing fails, a phone is wide enough.

Chromium loads a copy of the page with a script at its end that looks and leaves what it saw in the document.
"""

import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from components.evaluation.page.render import render
from tests.support import reports
from tests.support.chromium import NAMES
from tests.support.reports import HOSTILE, description, image, reference_level

CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.medium,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or Google Chrome"),
]
SECTIONS = ["finding", "accuracy", "meaning", "distributions", "classes", "gallery", "attacks", "training", "cost"]
SECTIONS += ["assumptions", "provenance"]
LOOK = """
<script>
const seen = {blocked: []};
addEventListener("securitypolicyviolation", (event) => seen.blocked.push(event.blockedURI));
const typed = (id, value, kind) => { at(id).value = value; at(id).dispatchEvent(new Event(kind)); };
addEventListener("load", () => {
  seen.width = innerWidth;
  seen.wide = document.documentElement.scrollWidth;
  const may = ".scroll, .hidden, dialog, svg";
  seen.beyond = [...document.querySelectorAll("main *")].filter((part) => !part.closest(may))
    .filter((part) => part.getBoundingClientRect().right > innerWidth + 1).map((part) => part.outerHTML.slice(0, 80));
  seen.sections = Object.fromEntries([...document.querySelectorAll("main > section")].map(
    (part) => [part.id, [part.getBoundingClientRect().height, part.innerText.length]]));
  const names = performance.getEntriesByType("resource").map((one) => one.name);
  seen.requests = names.filter((name) => !name.startsWith("data:"));
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  document.querySelectorAll("img").forEach((picture) => { picture.loading = "eager"; });
  seen.charts = [...document.querySelectorAll("figure.chart svg")].map((chart) => chart.getBoundingClientRect().width);
  const drawn = [...document.querySelectorAll("figure.chart svg [stroke^=var]")];
  seen.colors = [...new Set(drawn.map((one) => getComputedStyle(one).stroke))];
  seen.paper = getComputedStyle(document.body).backgroundColor;
  seen.ink = getComputedStyle(document.body).color;
  typed("query", "17", "input");
  seen.number = at("results").innerText;
  typed("query", "ca", "input");
  seen.named = [at("count").textContent, at("results").childElementCount];
  at("results").firstElementChild.click();
  seen.found = [at("large").open, at("large-title").textContent];
  at("large").close();
  typed("query", "", "input");
  typed("which", "failed", "change");
  seen.failed = at("results").childElementCount;
  const first = document.querySelector(".card .enlarge");
  first.focus();
  seen.focus = document.activeElement === first;
  first.click();
  seen.large = [at("large").open, at("large-body").querySelectorAll("img").length];
  seen.keyboard = document.activeElement.closest("dialog") === at("large");
  at("large").querySelector("form button").click();
  seen.closed = !at("large").open;
  const end = () => {
    seen.broken = [...document.images].filter((one) => !one.naturalWidth).length;
    parent.postMessage(JSON.stringify(seen), "*");
  };
  setTimeout(end, 500);
});
</script>
</body>"""
FRAME = """<!doctype html>
<html style="color-scheme: light dark">
<iframe src="report.html" style="border: 0; width: %dpx; height: 1200px"></iframe>
<pre id="seen"></pre>
<script>addEventListener("message", (event) => { document.getElementById("seen").textContent = event.data; });</script>
</html>"""
"""No window of Chromium is as narrow as a phone."""


def browse(file, folder, width, *options):
    """What Chromium prints and logs."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1200", "--virtual-time-budget=5000"]
    return subprocess.run(
        [*command, *options, file.as_uri()], capture_output=True, text=True, timeout=120, check=True, cwd=folder
    )


@pytest.fixture(scope="module")
def page():
    levels = [reports.attacked(reference_level(0.25)), reference_level(0.5)]
    return render("pets", description(), levels, image)


@pytest.fixture(scope="module", params=[(1280, 1), (390, 0)], ids=["desktop, light", "phone, dark"])
def seen(request, page, tmp_path_factory):
    """What the script saw, and what the browser logged."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(page.replace("</body>", LOOK), encoding="utf-8")
    width, scheme = request.param
    frame = folder / "frame.html"
    frame.write_text(FRAME % width, encoding="utf-8")
    done = browse(frame, folder, 1400, f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom")
    found = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.S)
    assert found, done.stderr
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("&nbsp;", " ")
    return json.loads(text) | {"log": done.stderr, "asked_width": width, "dark": scheme == 0}


def test_every_section_shows_something(seen):
    assert list(seen["sections"]) == SECTIONS
    for name, (height, characters) in seen["sections"].items():
        assert height > 60, name
        assert characters > 60, name
    assert len(seen["charts"]) == 9
    assert min(seen["charts"]) > 200
    assert seen["broken"] == 0


def test_nothing_is_asked_for_and_nothing_fails(seen):
    assert seen["requests"] == []
    assert seen["blocked"] == []
    assert "CONSOLE" not in seen["log"], [line for line in seen["log"].splitlines() if "CONSOLE" in line]


def test_nothing_scrolls_sideways_but_tables(seen):
    assert seen["width"] == seen["asked_width"]
    assert seen["wide"] <= seen["width"]
    assert seen["beyond"] == []


def test_the_scheme_decides_the_colours_of_text_and_charts(seen):
    paper, ink = (sum(map(int, re.findall(r"\d+", seen[name])[:3])) for name in ("paper", "ink"))
    assert (paper < ink) == seen["dark"]
    assert not any(color in ("none", "") for color in seen["colors"])
    assert len(seen["colors"]) >= 3


def test_images_are_found_by_number_by_class_and_by_failure(seen):
    assert seen["number"].startswith("Image 17:")
    assert seen["named"][0].startswith("10 of 30 images")
    assert seen["named"][1] == 10
    assert seen["found"] == [True, "Image 0: “cat”"]
    assert 0 < seen["failed"] < 30


def test_a_card_is_enlarged_and_closed_from_the_keyboard(seen):
    assert seen["focus"]
    assert seen["large"] == [True, 4]
    assert seen["keyboard"]
    assert seen["closed"]


def test_hostile_names_stay_text(seen):
    assert HOSTILE not in seen["log"]


def test_it_is_drawn_and_printed(page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    browse(file, tmp_path, 390, f"--screenshot={tmp_path / 'shot.png'}")
    with Image.open(tmp_path / "shot.png") as shot:
        assert shot.width == 390
        assert len(shot.convert("RGB").getcolors(100_000)) > 50
    browse(file, tmp_path, 1280, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "page.pdf").stat().st_size > 50_000

"""The pages: what they link is there, what they compute comes out, and the site has all of them."""

import contextlib
import importlib.util
import io
import re
import tomllib
from pathlib import Path

import pytest

from pipelines.__main__ import commands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def build():
    """docs/build.py, which lies in no package."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs/build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def names():
    return set(commands())


def site_pages(nav):
    """The paths in the navigation of zensical.toml."""
    for entry in nav:
        for value in entry.values():
            yield from site_pages(value) if isinstance(value, list) else [value]


@pytest.mark.medium
@pytest.mark.parametrize("name", ["radius", "choosing"])
def test_what_a_page_computes_is_what_it_shows(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```\n\n^```\n(.*?)^```$", text, flags=re.M | re.S)
    assert len(blocks) == 2
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, f"docs/{name}.md", "exec"), {})
        assert [line.rstrip() for line in printed.getvalue().splitlines()] == shown.splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_a_page_links_exist(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_picture_has_a_text_for_those_who_do_not_see_it(page):
    texts = re.findall(r"!\[([^\]]*)\]\(", page.read_text(encoding="utf-8"))
    assert all(len(text.split()) > 3 for text in texts)
    assert texts or page.name not in ("README.md", "index.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_that_a_page_gives_exist(page, names):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`(?:smoothmix|python -m pipelines)[. ]([a-z]+)", text)) <= names
    modules = set(re.findall(r"python -m ((?:pipelines|benchmarks|examples)\.[a-z_]+)", text))
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_the_site_has_every_page_and_every_folder_of_components(build):
    nav = set(site_pages(tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]))
    folders = {path.parent.name for path in (ROOT / "components").glob("*/__init__.py")}
    assert set(build.PARTS) == folders
    pages = {page.name for page in PAGES[1:]} | {"results/README.md"} | {f"reference/{part}.md" for part in folders}
    assert nav == pages


def test_pages_load_nothing_from_elsewhere(build, tmp_path):
    (tmp_path / "reference").mkdir()
    page, link = tmp_path / "reference/page.html", '<a href="https://example.org">'
    page.write_text(f'<script src="https://example.org/iframe-worker/shim" type="text/javascript"></script>{link}')
    assert build.load_from_here(tmp_path) == []
    assert page.read_text().startswith('<script src="../javascripts/iframe-worker.js"')
    assert (ROOT / "docs/javascripts/iframe-worker.js").exists()
    page.write_text(
        '<link rel="stylesheet" href=https://example.org/a.css><img alt="" src="https://example.org/b.png">'
    )
    assert build.load_from_here(tmp_path) == ["https://example.org/a.css", "https://example.org/b.png"]


def test_the_reference_names_every_module_of_a_folder(build):
    page = build.reference("certification")
    assert "::: components.certification.cohen\n" in page
    assert "::: components.certification.noise.reference\n" in page
    assert "__init__" not in page

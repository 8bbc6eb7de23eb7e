"""Builds the site: the pages of docs/, the kept results and a reference from the docstrings, into site/html.

`make docs` runs it. A broken link, an unknown name, or anything that pages would load from elsewhere
fails it. No network is asked.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES, HTML = ROOT / "site/pages", ROOT / "site/html"
PARTS = ["certification", "model", "training", "data", "evaluation", "registry", "serving", "cost", "tools"]
"""The folders of components/, in the order of the reference."""
SHIM = re.compile(r"https://[\w./]+/iframe-worker/shim\b")
"""What the site generator's search would load from elsewhere; docs/javascripts has it."""


def main() -> None:
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("*.py"))
    for page in PAGES.glob("*.md"):  # they stand beside results/ here, not below it
        page.write_text(page.read_text(encoding="utf-8").replace("](../results/", "](results/"), encoding="utf-8")
    for file in [ROOT / "results/README.md", *sorted((ROOT / "results").glob("*/*.png"))]:
        target = PAGES / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (PAGES / "reference").mkdir()
    for part in PARTS:
        (PAGES / "reference" / f"{part}.md").write_text(reference(part), encoding="utf-8")
    code = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=ROOT).returncode
    if outside := load_from_here(HTML):
        print(f"error: the site would load {', '.join(outside)} from elsewhere: bring it into docs/", file=sys.stderr)
    sys.exit(code or bool(outside))


def reference(part: str) -> str:
    """The page of one folder of components/: its modules, for mkdocstrings to fill in."""
    folder = ROOT / "components" / part
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    files = [path for path in sorted(folder.rglob("*.py")) if path.name != "__init__.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    title = re.sub(r"_", " ", part).capitalize()
    return "\n\n".join([f"# {title}", said, *(f"::: {name}" for name in names)]) + "\n"


def load_from_here(html: Path) -> list[str]:
    """Let the pages load the shim from the site; what they would still load from elsewhere."""
    outside: set[str] = set()
    for page in html.rglob("*.html"):
        up = "../" * (len(page.relative_to(html).parts) - 1)
        text = SHIM.sub(f"{up}javascripts/iframe-worker.js", page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
        outside |= set(
            re.findall(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']?(https?://[^"'> ]+)""", text)
        )
    return sorted(outside)


if __name__ == "__main__":
    main()

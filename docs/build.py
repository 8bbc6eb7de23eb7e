"""Builds the site: the pages of docs/, the kept results and a reference from the docstrings, into site/html.

`make docs` runs it. A broken link, an unknown page or name fails the build; it asks no network, and the site neither.
"""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "site/pages"
PARTS = ["certification", "model", "training", "data", "evaluation", "registry", "serving", "cost", "tools"]
"""The folders of components/, in the order of the reference."""


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
    sys.exit(subprocess.run(["zensical", "build", "--strict", "--clean"], cwd=ROOT).returncode)


def reference(part: str) -> str:
    """The page of one folder of components/: its modules, for mkdocstrings to fill in."""
    folder = ROOT / "components" / part
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    files = [path for path in sorted(folder.rglob("*.py")) if path.name != "__init__.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    title = re.sub(r"_", " ", part).capitalize()
    return "\n\n".join([f"# {title}", said, *(f"::: {name}" for name in names)]) + "\n"


if __name__ == "__main__":
    main()

"""docs/own-images.md: its commands, run one after the other in a copy of the project, print what the page shows."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.registry import free_port
from tests.support.workspace import ROOT, copy_project, environment

PAGE = ROOT / "docs/own-images.md"
MARK = "@@ next command"
NUMBER = re.compile(r"\d[\d,]*(\.\d+)?(e-\d+)?")


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1], flags=re.M)[0]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a section, each with the lines that the page shows of its output."""
    found: list[tuple[str, list[str]]] = []
    for language, block in re.findall(r"^```(sh|console)\n(.*?)^```$", text, flags=re.M | re.S):
        if language == "sh":
            found.append((block, []))
            continue
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line:
                found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """A line without what differs between machines: numbers, and how wide the columns beside them are."""
    return re.sub(r"[\s–-]+", " ", NUMBER.sub("0", line)).strip()


def is_shown(expected: list[str], printed: list[str]) -> bool:
    """Whether the expected lines are among the printed ones, in their order."""
    lines = iter(printed)
    return all(line in lines for line in expected)


@pytest.mark.slow
def test_the_commands_of_the_tutorial_print_what_it_shows(tmp_path: Path) -> None:
    project, steps = copy_project(tmp_path), commands(section("From a folder to a served certificate"))
    assert len(steps) > 10
    script, port = "".join(f"echo '{MARK}'\n{command}\n" for command, _ in steps), free_port()
    script = script.replace(":8000", f":{port}").replace("@challenger &", f"@challenger --port {port} &")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    outputs = done.stdout.split(f"{MARK}\n")[1:]
    assert len(outputs) == len(steps), done.stdout
    everything = [shape(line) for line in done.stdout.splitlines()]
    for (command, lines), output in zip(steps, outputs, strict=True):
        printed = everything if command.endswith("&") else [shape(line) for line in output.splitlines()]
        assert is_shown([shape(line) for line in lines], printed), f"{command} printed:\n{output}"


def test_the_page_names_every_form_of_own_images_and_each_archive() -> None:
    from components.data.sources.archive import NAMES
    from components.data.sources.splits import SPELLINGS

    text = PAGE.read_text(encoding="utf-8")
    for source in ("image_folder", "table", "arrays", "huggingface"):
        assert f"`source: {source}`" in text
    assert all(f"`{name}`" in text for name in NAMES)
    assert all(name in section("Splits") for name in SPELLINGS)

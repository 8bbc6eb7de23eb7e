"""All commands of the project as one: `smoothmix NAME ...`, or `python -m pipelines NAME ...`, is
`python -m pipelines.NAME ...` in the project's folder."""

import argparse
import ast
import difflib
import os
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
GROUPS = {
    "before a run": ["check"],
    "stages, which dvc repro runs": ["prepare", "validate", "brought", "train", "certify", "evaluate", "register"],
    "doubt": ["attack", "audit"],
    "registered models": ["lookup", "promote", "serve"],
    "operation": ["flow", "state"],
}
"""Commands that are in none of them are listed last."""
BAD_USAGE = 2


def commands() -> dict[str, str]:
    """The first sentence of each command's docstring by its name: of every module here that can be run."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("[a-z]*.py"))}
    runnable = {name: text for name, text in texts.items() if '\nif __name__ == "__main__":' in text}
    return {name: first_sentence(ast.get_docstring(ast.parse(text)) or "") for name, text in runnable.items()}


def first_sentence(docstring: str) -> str:
    """As far as the first full stop, question mark, colon or semicolon."""
    flat = " ".join(docstring.split())
    return re.split(r"(?<=\?) |[.:;](?: |$)", flat)[0]


def listing(said: dict[str, str]) -> str:
    """The commands in their groups, one a line."""
    grouped = {name for names in GROUPS.values() for name in names}
    groups = GROUPS | {"others": [name for name in said if name not in grouped]}
    lines = []
    for title, names in groups.items():
        rows = [f"  {name:<10}{said[name]}" for name in names if name in said]
        lines += [f"{title}:", *rows] if rows else []
    return "\n".join(lines)


def parser_of(said: dict[str, str]) -> argparse.ArgumentParser:
    """What shells complete: the commands, then files."""
    import shtab

    parser = argparse.ArgumentParser(prog="smoothmix")
    shtab.add_argument_to(parser)
    names = parser.add_subparsers(metavar="NAME")
    for name, line in said.items():
        rest = names.add_parser(name, help=line.replace("%", "%%"))
        rest.add_argument("arguments", nargs="*").complete = shtab.FILE  # type: ignore[attr-defined]
    return parser


def main() -> None:
    said = commands()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in said:
        os.execv(sys.executable, [sys.executable, "-m", f"pipelines.{name}", *arguments])
    if name in ("-h", "--help"):
        print(f"usage: smoothmix NAME ...   (smoothmix NAME --help says more)\n\n{listing(said)}\n")
        print('completion: eval "$(smoothmix --print-completion bash)", or zsh, fish')
        return
    if name == "--print-completion":
        parser_of(said).parse_args([name, *arguments])
        return
    near = difflib.get_close_matches(name, said, n=1)
    hint = f"did you mean {near[0]}?" if near else "smoothmix --help lists them"
    print(f"error: there is no command {name}: {hint}", file=sys.stderr)
    sys.exit(BAD_USAGE)


if __name__ == "__main__":
    main()

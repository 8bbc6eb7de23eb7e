"""Files of ours are UTF-8 whatever the locale."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_what_reads_or_writes_text_names_the_encoding():
    silent = []
    for folder in ("components", "pipelines", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(call, ast.Call):
                    continue
                opens = isinstance(call.func, ast.Name) and call.func.id == "open"
                whole = isinstance(call.func, ast.Attribute) and call.func.attr in ("read_text", "write_text")
                if (opens or whole) and "encoding" not in {keyword.arg for keyword in call.keywords}:
                    silent.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not silent, "add encoding='utf-8'"

"""No function takes more than eight parameters without a reason: records of what belongs together say more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 8


def functions(body: list[ast.stmt], of: str = "") -> Iterator[tuple[str, int, str]]:
    """Name, number of parameters and docstring of every public function and method, and of every `__init__`."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            own = names[1:] if of and names[:1] in (["self"], ["cls"]) else names
            if not node.name.startswith("_") or node.name == "__init__":
                yield f"{of}{node.name}", len(own), ast.get_docstring(node) or ""


def too_long(source: str) -> list[str]:
    """The functions of a module that have more parameters and do not say why."""
    return [
        f"{name}: {count} parameters"
        for name, count, text in functions(ast.parse(source).body)
        if count > MOST and not re.search(rf"(^|[.]\s+|\n)It takes {count} parameters because\b", text)
    ]


def test_a_function_with_more_than_eight_parameters_says_why() -> None:
    modules = [path for package in ("taylor_ops", "flows") for path in sorted((ROOT / package).rglob("*.py"))]
    assert modules
    long = {str(path.relative_to(ROOT)): too_long(path.read_text(encoding="utf-8")) for path in modules}
    assert {place: names for place, names in long.items() if names} == {}


@pytest.mark.parametrize(
    ("why", "found"),
    [
        ("", ["work: 9 parameters"]),
        ("Do it. It takes 9 parameters because a person names each on the command line.", []),
        ("Do it.\n\nIt takes 9 parameters because a person names each on the command line.", []),
        ("Do it. It takes 10 parameters because nobody counted them.", ["work: 9 parameters"]),
    ],
)
def test_the_scan_sees_a_long_function_and_its_reason(why: str, found: list[str]) -> None:
    source = f'def work(a, b, c, d, e, f, g, *, h, i):\n    """{why}"""\n'
    assert too_long(source) == found
    indented = "".join(f"    {line}\n" for line in source.replace("(a", "(self, a").replace("\n\n", " ").splitlines())
    assert too_long(f"class Public:\n{indented}") == [f"Public.{name}" for name in found]
    assert too_long(source.replace("work", "_work")) == []

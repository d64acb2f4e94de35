"""Fill the pages of the reference: called by mkdocs while it builds the site."""

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARKER = re.compile(r"<!-- modules of ([\w.]+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a directive for each module of a package in place of ``<!-- modules of PACKAGE -->``."""
    return MARKER.sub(lambda match: "\n\n".join(directives(match[1])), markdown)


def directives(package: str) -> list[str]:
    """Return a directive for each module, without the names that the package hands out: those stand above."""
    folder = ROOT / package.replace(".", "/")
    handed_out = imported_names(folder / "__init__.py")
    found = []
    for path in sorted(folder.glob("*.py")):
        name = f"{package}.{path.stem}"
        left_out = handed_out.get(name, set())
        if path.stem != "__init__" and public_names(path) - left_out:
            filters = ", ".join(f'"!^{word}$"' for word in sorted(left_out))
            more = f', filters: ["!^_", {filters}]' if filters else ""
            found.append(f"::: {name}\n    options: {{ heading_level: 3{more} }}")
    return found


def imported_names(path: Path) -> dict[str, set[str]]:
    """Return the names that a file imports, by module."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {str(n.module): {alias.name for alias in n.names} for n in nodes if isinstance(n, ast.ImportFrom)}


def public_names(path: Path) -> set[str]:
    """Return the public classes and functions of a file."""
    kinds = ast.ClassDef | ast.FunctionDef
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, kinds) and not n.name.startswith("_")}

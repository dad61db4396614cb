"""The picture of the house in docs/architecture.md and the modules in CONTRIBUTING.md: `make architecture`.

Both are generated from the code, so that they cannot drift from it.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tunepoint"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
EVERYWHERE = "errors"
"""Every folder may import it, so its arrows would only hide the others."""
Imports = dict[str, set[str]]
"""Folder -> the folders that it imports."""


def sources() -> list[Path]:
    """The modules of the package, without the example data that a wheel carries and without migrations."""
    skipped = ("examples", "migrations", "__pycache__")
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not set(skipped) & set(path.parts)]


def folder_imports() -> Imports:
    """The folders that each folder imports, imports inside functions and for types included."""
    imports: Imports = {}
    for path in sources():
        folder, *inside = path.relative_to(PACKAGE).parts
        if not inside:
            continue
        targets = imports.setdefault(folder, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tunepoint."):
                targets.add((node.module or "").split(".")[1])
    return {folder: targets - {folder, EVERYWHERE} for folder, targets in imports.items()}


def reachable(folder: str, imports: Imports) -> set[str]:
    """All folders behind a folder, over any number of imports."""
    behind: set[str] = set()
    for target in imports[folder]:
        behind |= {target} | reachable(target, imports)
    return behind


def essential(imports: Imports) -> Imports:
    """The imports without those that another import implies (the transitive reduction)."""
    return {
        folder: {
            target
            for target in targets
            if not any(target in reachable(other, imports) for other in targets - {target})
        }
        for folder, targets in imports.items()
    }


def by_depth(imports: Imports) -> list[str]:
    """Folders, each after all that it imports."""
    return sorted(imports, key=lambda folder: (len(reachable(folder, imports)), folder))


def imports_block() -> str:
    """A Mermaid graph of the essential imports, and a table of all of them."""
    imports = folder_imports()
    order = by_depth(imports)
    arrows = essential(imports)
    lines = ["```mermaid", "graph TB"]
    for folder in order:
        lines += [f"  {folder} --> {target}" for target in order if target in arrows[folder]]
    lines += ["```", "", "| folder | imports |", "|---|---|"]
    for folder in order:
        targets = " ".join(f"`{target}`" for target in order if target in imports[folder])
        lines.append(f"| `{folder}/` | {targets or 'nothing'} |")
    return "\n".join(lines)


def summary(path: Path) -> str:
    """The first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def modules_block() -> str:
    """Every module in one line, by folder, in the order of the imports."""
    order = [EVERYWHERE, *by_depth(folder_imports()), "__main__"]
    paths = [path for path in sources() if path != PACKAGE / "__init__.py"]
    paths.sort(key=lambda path: order.index(path.relative_to(PACKAGE).parts[0].removesuffix(".py")))
    lines: list[str] = []
    for path in paths:
        name = path.relative_to(PACKAGE).as_posix()
        if path.name == "__init__.py":
            lines += ["", f"**`{name.removesuffix('__init__.py')}`** {summary(path)}", ""]
        else:
            lines.append(f"* `{name}`: {summary(path)}")
    return "\n".join(lines).strip()


def with_block(page: str, name: str, block: str) -> str:
    """The page with what stands between its markers replaced."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n\n{block}\n\n{end}{after}"


def main() -> None:
    """Write both blocks."""
    for page, name, block in (
        (ARCHITECTURE, "imports", imports_block()),
        (CONTRIBUTING, "modules", modules_block()),
    ):
        page.write_text(with_block(page.read_text(encoding="utf-8"), name, block), encoding="utf-8")


if __name__ == "__main__":
    main()

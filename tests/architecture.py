"""The picture of the house in docs/architecture.md, drawn from the imports: `make architecture`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tunepoint"
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- imports -->", "<!-- /imports -->"
EVERYWHERE = "errors"
"""Every folder may import it, so that its arrows would only hide the others."""


def folder_imports() -> dict[str, set[str]]:
    """The folders that each folder imports, imports inside functions and for types included."""
    imports: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        folder, *inside = path.relative_to(PACKAGE).parts
        if not inside or "examples" in folder:
            continue
        targets = imports.setdefault(folder, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tunepoint."):
                targets.add((node.module or "").split(".")[1])
    return {folder: targets - {folder, EVERYWHERE} for folder, targets in imports.items()}


def reachable(folder: str, imports: dict[str, set[str]]) -> set[str]:
    """All folders behind a folder, over any number of imports."""
    behind: set[str] = set()
    for target in imports[folder]:
        behind |= {target} | reachable(target, imports)
    return behind


def essential(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """The imports without those that another import already implies (the transitive reduction)."""
    return {
        folder: {
            target
            for target in targets
            if not any(target in reachable(other, imports) for other in targets - {target})
        }
        for folder, targets in imports.items()
    }


def by_depth(imports: dict[str, set[str]]) -> list[str]:
    """Folders, each after all that it imports."""
    return sorted(imports, key=lambda folder: (len(reachable(folder, imports)), folder))


def block() -> str:
    """A Mermaid graph of the essential imports, and a table of all of them."""
    imports = folder_imports()
    order = by_depth(imports)
    arrows = essential(imports)
    lines = [START, "", "```mermaid", "graph BT"]
    for folder in order:
        lines += [f"  {folder} --> {target}" for target in order if target in arrows[folder]]
    lines += ["```", "", "| folder | imports |", "|---|---|"]
    for folder in order:
        targets = " ".join(f"`{target}`" for target in order if target in imports[folder])
        lines.append(f"| `{folder}/` | {targets or 'nothing'} |")
    return "\n".join([*lines, "", END])


def with_block(page: str) -> str:
    """The page with its block drawn again."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return before + block() + after


if __name__ == "__main__":
    PAGE.write_text(with_block(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""The house keeps its shape: imports point one way, and files and functions stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "tunepoint"
IMPORTS = {
    "errors": "",
    "stats": "errors",
    "files": "errors stats",
    "models": "errors stats files",
    "task": "errors stats files models",
    "data": "errors stats files models task",
    "trials": "errors stats files models task data",
    "costs": "errors stats files models task data trials",
    "decision": "errors stats files models task data trials costs",
    "report": "errors stats files models task data trials costs decision",
    "arms": "errors stats files models task data trials",
    "study": "errors stats files models task data trials costs decision report arms",
    "capture": "errors stats files models task data trials",
    "serve": "errors stats files models task data trials costs decision report arms study capture",
    "loop": "errors stats files models task data trials costs decision report arms study capture serve",
    "studio": "errors stats files models task data trials costs decision report arms study",
    "cli": "errors stats files models task data trials costs decision report arms study capture serve loop "
    "studio",
}
"""What each folder may import; a folder stands behind all that it imports, so there are no cycles."""
APART = ("baselines", "prompting", "encoder", "causal", "hosted")
"""Folders of `arms` that do not know each other."""
HEAVY = ("torch", "transformers")
MAY_LOAD_TORCH = (
    "models/encoder.py",
    "models/local.py",
    "models/gguf/unpacking.py",
    "arms/encoder/",
    "arms/causal/",
)


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "migrations" not in path.parts]


def place(path: Path) -> str:
    """The path inside the package, as in `arms/catalog.py`."""
    return path.relative_to(PACKAGE).as_posix()


def folder_of(path: Path) -> str:
    return place(path).partition("/")[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Dotted names below `tunepoint` that a module imports."""
    start = "tunepoint."
    return {name.removeprefix(start) for name in imported_modules(path) if name.startswith(start)}


def imports_between(*folders: str) -> list[str]:
    """Imports of the second folder and those after it by modules of the first."""
    importer, *others = folders
    return [
        f"{place(path)} imports {name}"
        for path in sources()
        if place(path).startswith(f"{importer}/")
        for name in own_imports(path)
        if name.split(".")[0] in others
    ]


def test_the_root_holds_the_stages_and_the_errors() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "examples")}
    folders = {f"{name}.py" if name == "errors" else name for name in IMPORTS}
    assert entries == folders | {"__init__.py", "__main__.py", "py.typed"}


@pytest.mark.parametrize("folder", IMPORTS)
def test_a_folder_imports_only_those_before_it(folder: str) -> None:
    allowed = {*IMPORTS[folder].split(), folder, "__version__"}
    for path in sources():
        if folder_of(path) == folder:
            beyond = {name for name in own_imports(path) if name.split(".")[0] not in allowed}
            assert not beyond, f"{place(path)} imports {beyond}"


def test_the_order_of_the_folders_has_no_cycle() -> None:
    before: set[str] = set()
    for folder, others in IMPORTS.items():
        assert set(others.split()) <= before
        before.add(folder)


def test_decision_does_not_see_arms() -> None:
    assert not imports_between("decision", "arms", "study")


def test_costs_do_not_see_arms() -> None:
    assert not imports_between("costs", "arms", "study")


def test_the_report_does_not_see_arms() -> None:
    assert not imports_between("report", "arms", "study")


def test_an_arm_does_not_see_its_price() -> None:
    assert not imports_between("arms", "costs", "decision", "study")


def test_an_endpoint_knows_nothing_of_tasks() -> None:
    assert not imports_between("models", "task", "data")


@pytest.mark.parametrize("folder", APART)
def test_kinds_of_arms_do_not_know_each_other(folder: str) -> None:
    for path in sources():
        if place(path).startswith(f"arms/{folder}/"):
            parts = {name.split(".")[1] for name in own_imports(path) if name.startswith("arms.")}
            assert parts.isdisjoint({*APART} - {folder}), place(path)


def test_torch_is_imported_where_models_are_trained_and_run() -> None:
    for path in sources():
        if not place(path).startswith(MAY_LOAD_TORCH):
            heavy = {name for name in imported_modules(path) if name.split(".")[0] in HEAVY}
            assert not heavy, f"{place(path)} imports {heavy}"


def test_no_module_imports_itself_through_others() -> None:
    """Imports inside functions count, those for types do not."""
    graph = {name_of(path): set(runtime_imports(path)) for path in sources()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def runtime_imports(path: Path) -> Iterator[str]:
    known = {name_of(other) for other in sources()}
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from [name for name in (whole, node.module) if name in known][:1]


def test_files_and_functions_stay_small() -> None:
    for path in sources():
        text = path.read_text()
        assert text.count("\n") < 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, f"{place(path)}: {node.name}"


def test_the_readme_names_every_folder() -> None:
    readme = (ROOT / "README.md").read_text()
    for folder in set(IMPORTS) - {"errors"}:
        assert f"{folder}/" in readme, folder

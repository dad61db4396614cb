"""The house keeps its shape: imports point one way, files and functions stay small."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "tunepoint"
ORDER = [
    {"errors"},
    {"currencies"},
    {"stats", "data", "models"},
    {"quantities", "task_faults"},
    {"hosting", "assumptions"},
    {"task"},
    {"scorers", "arms"},
    {"prompting", "tuning", "measure", "candidates", "cascades", "incumbents", "judging"},
    {"cost", "quotes"},
    {"optimising", "tuned", "exports", "parity"},
    {"teaching"},
    {"steps"},
    {"sealed"},
    {"evidence", "power", "sizes", "caveats", "guards", "decisions", "slices", "signals", "documents"},
    {"report", "findings", "growth", "spending", "costing"},
    {
        "studies",
        "drafts",
        "checkup",
        "encoder_exports",
        "estimates",
        "load",
        "prices",
        "served",
        "tunings",
        "whatif",
        "terminal",
    },
    {"capture"},
    {"savings", "drift"},
    {"serve"},
    {"loop"},
    {"circle"},
    {"cli", "cli_money", "cli_weights", "cli_serve", "cli_loop"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tunepoint."):
            found.add(str(node.module).split(".")[1])
    return found


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "__init__.py" and "assets" not in p.parts]


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room(path) for path in sources()} == set(RANK)


def test_imports_point_one_way() -> None:
    for path in sources():
        for other in imported(path):
            assert RANK[other] <= RANK[room(path)], f"{path.name} imports {other}"


def test_prompting_and_tuning_do_not_know_each_other_and_stats_knows_nobody() -> None:
    for path in sources():
        if room(path) == "prompting":
            assert "tuning" not in imported(path)
        if room(path) == "tuning":
            assert "prompting" not in imported(path)
        if room(path) == "stats":
            assert imported(path) <= {"errors", "stats"}


def test_files_and_functions_stay_small() -> None:
    for path in sources():
        text = path.read_text()
        assert text.count("\n") < 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, f"{path}: {node.name}"


def test_the_readme_tree_names_every_module() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in sources():
        assert re.search(rf"\b{path.stem}(\.py|\b)", readme), path

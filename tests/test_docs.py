"""The documentation cannot drift: its examples run, its links lead somewhere, its keys exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from conftest import ROOT
from pydantic import BaseModel

import tunepoint
from tunepoint.arms.hosted.providers import PROVIDERS
from tunepoint.cli.app import app
from tunepoint.costs.arms_toml import DeclaredArm, read_arms
from tunepoint.report.glossary import TERMS
from tunepoint.task.task import Task
from tunepoint.trials.trial import Trial

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CURRENT = [page for page in PAGES if page.name != "log.md"]
"""Without the log: it is history, and names modules as they were on its day."""
READMES = sorted((ROOT / "examples").rglob("README.md"))


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for code in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S):
            yield page.name, code


def test_python_examples_run(
    small_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    codes = {code for _, code in blocks("python")}
    assert codes
    for code in codes:
        assert code.count("\n") <= 10
        exec(compile(code.replace("examples/support-triage", str(small_task)), "docs", "exec"), {})
    assert "report.html" in capsys.readouterr().out


def test_arms_toml_examples_are_read(tmp_path: Path) -> None:
    examples = [code for _, code in blocks("toml") if "[[arm]]" in code]
    assert examples
    for code in examples:
        path = tmp_path / "arms.toml"
        path.write_text(code)
        assert read_arms(path)


def test_the_table_of_providers_of_fine_tuning_says_what_the_code_knows() -> None:
    page = (ROOT / "docs" / "tuning.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert PROVIDERS.keys() <= rows.keys()
    for name, provider in PROVIDERS.items():
        days = [*(notice.on for notice in provider.announced), provider.closes]
        for day in filter(None, days):
            assert str(day) in rows[name], (name, day)
        for day, bases in re.findall(r"(\d{4}-\d\d-\d\d): ((?:`[^`]+`(?:, )?)+)", rows[name]):
            for base in re.findall("`([^`]+)`", bases):
                retirement = provider.retirement(base)
                assert retirement is not None and str(retirement.on) == day, base
        assert name == "own" or f"| {provider.checked} |" in rows[name]


def test_toml_examples_parse() -> None:
    examples = list(blocks("toml"))
    assert examples
    for page, code in examples:
        assert tomllib.loads(code), page


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_source_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"`([a-z_]+/[a-z_0-9/]+\.(?:py|toml|jinja))`", page.read_text()):
        places = (ROOT / name, ROOT / "tunepoint" / name, ROOT / "tunepoint" / "arms" / name)
        assert any(place.exists() for place in places), name


def test_the_glossary_has_every_term_of_the_report() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    for term in TERMS:
        assert f"| {term} |" in glossary, term


def test_the_glossary_is_linked_from_where_a_reader_starts() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "docs/why.md", "docs/quickstart.md", "docs/decision.md"):
        assert "glossary.md" in (ROOT / name).read_text(), name


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_key_of_the_task_is_described() -> None:
    page = (ROOT / "docs" / "task.md").read_text()
    for name, entry in Task.model_fields.items():
        if name == "folder":
            continue
        keys = [name]
        section = entry.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            keys += section.model_fields
        for key in keys:
            assert (
                f"`{key}`" in page
                or f"`[{key}]`" in page
                or f"`[[{key}]]`" in page
                or (f"`[{name}.{key}]`" in page)
            ), key


def test_every_field_of_a_trial_is_described() -> None:
    page = (ROOT / "docs" / "files.md").read_text()
    for field in Trial.model_fields:
        assert f"`{field}`" in page, field


def test_every_key_of_arms_toml_is_described() -> None:
    page = (ROOT / "docs" / "files.md").read_text()
    section = page[page.index("## arms.toml") :].split("\n## ")[0]
    for field in DeclaredArm.model_fields:
        assert f"`{field}`" in section or f"{field} =" in section, field


def test_commands_that_are_shown_exist() -> None:
    group = typer.main.get_command(app)
    commands = set(getattr(group, "commands"))  # noqa: B009 -- typer's own subclass hides it
    for page in [*PAGES, *READMES]:
        shown = set(re.findall(r"^tunepoint (\w+)", page.read_text(), re.M))
        assert shown <= commands, (page, shown - commands)


def test_public_names_are_those_of_the_quickstart() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text()
    listed = text[text.index("The public names") :].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(tunepoint.__all__)
    for name in tunepoint.__all__:
        assert getattr(tunepoint, name) is not None

"""The picture of the house is drawn from the imports, and the files that the pages name exist."""

from __future__ import annotations

import re

from architecture import (
    ARCHITECTURE,
    CONTRIBUTING,
    PACKAGE,
    essential,
    imports_block,
    modules_block,
    reachable,
    sources,
    with_block,
)
from conftest import ROOT


def test_the_picture_is_current() -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    assert page == with_block(page, "imports", imports_block()), "imports changed: run `make architecture`"


def test_the_arrows_lead_to_everything_that_is_imported() -> None:
    imports = {"cli": {"study", "stats"}, "study": {"stats"}, "stats": set[str]()}
    arrows = essential(imports)
    assert arrows == {"cli": {"study"}, "study": {"stats"}, "stats": set()}
    assert reachable("cli", arrows) == reachable("cli", imports)


def test_every_module_is_listed() -> None:
    names = set(re.findall(r"^\* `([\w/]+\.py)`", modules_block(), re.M))
    listed = set(re.findall(r"^\* `([\w/]+\.py)`", CONTRIBUTING.read_text(encoding="utf-8"), re.M))
    assert names == listed, "modules changed: run `make architecture`"
    assert len(names) > 100


def test_every_file_that_is_named_exists() -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    names = set(re.findall(r"`([a-z_]+/[a-z_/]*(?:\.[a-z.]+)?)`", page))
    assert names
    for name in names:
        places = (PACKAGE / name, PACKAGE / "arms" / name, ROOT / name)
        assert any(place.exists() for place in places), name


def test_every_name_in_where_do_i_put_exists() -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    names = set(re.findall(r"`([A-Z][A-Z_]+|[A-Z][a-z]+[A-Z]\w+|measure_signals|add_to)`", page))
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources())
    assert {"PROVIDERS", "SCORERS", "measure_signals"} <= names
    for name in names:
        assert re.search(rf"^(?:class |def )?{name}\b", code, re.M), name

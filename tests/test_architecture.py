"""The picture of the house is drawn from the imports, and the files that it names exist."""

from __future__ import annotations

import re

from architecture import PACKAGE, PAGE, essential, reachable, with_block
from conftest import ROOT


def test_the_picture_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_block(page), "imports have changed: run `make architecture`"


def test_the_arrows_lead_to_everything_that_is_imported() -> None:
    imports = {"cli": {"study", "stats"}, "study": {"stats"}, "stats": set[str]()}
    arrows = essential(imports)
    assert arrows == {"cli": {"study"}, "study": {"stats"}, "stats": set()}
    assert reachable("cli", arrows) == reachable("cli", imports)


def test_every_file_that_is_named_exists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"`([a-z_]+/[a-z_/]*(?:\.[a-z.]+)?)`", page):
        assert (PACKAGE / name).exists() or (PACKAGE / "arms" / name).exists() or (ROOT / name).exists(), name

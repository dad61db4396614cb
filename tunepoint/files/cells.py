"""Cells of CSV files for people: a spreadsheet shows them as text, and runs none as a formula."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""What a spreadsheet takes for the start of a formula, perhaps with apostrophes before it."""


def escape_cell(text: str) -> str:
    """Return a text as a cell: one that would be a formula begins with an apostrophe.

    Source: OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_cell(cell: str) -> str:
    """Return the text of a cell; one that somebody wrote without the apostrophe stays as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell

"""The verdict in a notebook: what to do, what it saves, how sure, and the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tunepoint.report.first_screen import first_screen
from tunepoint.report.options_table import options_table


def notebook_html(decision: Mapping[str, Any], study: str) -> str:
    """Return the verdict as a fragment of HTML, without a style of its own.

    Args:
        decision: the content of decision.json.
        study: folder of the study, as commands name it.

    """
    screen, (heads, options) = first_screen(decision, (), study), options_table(decision)
    top = Markup("").join(Markup("<th>{}</th>").format(head) for head in heads)
    rows = Markup("")
    for option in options:
        name = Markup("<b>{}</b>").format(option.name) if option.wins else option.name
        cells = Markup("").join(Markup("<td>{}</td>").format(cell) for cell in (name, *option.cells))
        rows += Markup("<tr>{}</tr>").format(cells)
    summary = Markup("<p><b>{}</b><br>{}<br>{}</p>").format(screen.title, screen.strength, screen.choice)
    table = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(top, rows)
    # two dollar signs in a text would be a formula for a notebook
    box = Markup('<div class="tex2jax_ignore mathjax_ignore">{}{}<p>Next: <code>{}</code></p></div>')
    return str(box.format(summary, table, screen.steps[0].command))

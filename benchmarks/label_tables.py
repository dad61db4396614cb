"""Tables of how many labels studies needed, for `disagreements.py`."""

from __future__ import annotations

from collections.abc import Sequence

from verdicts import Row, share

EQUAL_LABELS = (50, 100, 200)
"""Labels at which both ways are compared, whether settled before or not."""


def summary(rows: Sequence[Row]) -> Row:
    """Return the figures of a set of studies; those that the test set settles need no label."""
    open_studies = [row for row in rows if row["alone"] != "confident"]
    figures: Row = {"studies": len(rows), "open": len(open_studies)}
    figures["agree"] = share(row["agree"] for row in open_studies)
    either = [
        row
        for row in open_studies
        if any(row[way]["strength"] == "confident" for way in ("disagreements", "random"))
    ]
    for way in ("disagreements", "random"):
        ends = [row[way] for row in open_studies]
        figures[f"settled, {way}"] = share(end["strength"] == "confident" for end in ends)
        figures[f"labels, {way}"] = share(row[way]["labels"] for row in either)
        for strength in ("confident", "leaning"):
            figures[f"wrong when {strength}, {way}"] = share(
                end["wrong"] for end in ends if end["strength"] == strength
            )
        figures[f"hold, {way}"] = share(end["holds"] for end in ends)
        figures[f"differ, {way}"] = share(end["differ"] for end in ends)
        figures[f"another, {way}"] = share(end["another pool"] for end in ends)
        for count in EQUAL_LABELS:
            figures[f"undecided at {count}, {way}"] = share(_state(end, count) == "undecided" for end in ends)
    if either:
        figures["ratio"] = figures["labels, disagreements"] / figures["labels, random"]
    return figures


def _state(end: Row, labels: int) -> str:
    """Return how a study stands after that many labels; what is settled stays settled."""
    return str(end["states"][max(look for look in end["states"] if look <= labels)])


COLUMNS: tuple[tuple[str, str], ...] = (
    ("studies", "d"),
    ("open", "d"),
    ("agree", ".0%"),
    ("settled, disagreements", ".0%"),
    ("settled, random", ".0%"),
    ("labels, disagreements", ",.0f"),
    ("labels, random", ",.0f"),
    ("ratio", ".2f"),
    ("undecided at 100, disagreements", ".0%"),
    ("undecided at 100, random", ".0%"),
    ("wrong when confident, disagreements", ".1%"),
    ("wrong when leaning, disagreements", ".1%"),
    ("hold, disagreements", ".1%"),
)
EQUAL: tuple[tuple[str, str], ...] = (
    ("studies", "d"),
    ("open", "d"),
    ("differ, disagreements", ".1%"),
    ("wrong when confident, disagreements", ".1%"),
    ("wrong when leaning, disagreements", ".1%"),
    ("another, disagreements", ".1%"),
    ("hold, disagreements", ".1%"),
)


def show(title: str, groups: dict[str, list[Row]], columns: Sequence[tuple[str, str]]) -> Row:
    """Print a Markdown table with one line for each group, and return its figures."""
    figures = {name: summary(rows) for name, rows in groups.items() if rows}
    print(f"\n| {title} | " + " | ".join(head for head, _ in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, values in figures.items():
        cells = ["" if values.get(key) is None else format(values[key], form) for key, form in columns]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return figures


def grouped(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    return {
        str(value): [row for row in rows if row[key] == value]
        for value in dict.fromkeys(r[key] for r in rows)
    }

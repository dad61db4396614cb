"""Compare two decision.json files: scores, intervals and verdict must be equal, whatever was renamed.

Usage: python benchmarks/same_decision.py BEFORE/decision.json AFTER/decision.json

Costs that come from measured seconds differ from run to run, and so may the probabilities and the
strength of a near tie; they are printed and not compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COMPARED = ("items", "score", "format_ok", "kind")
"""Keys of a finalist that follow from the seed and the data alone."""


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return a line for each difference; none if the two say the same."""
    lines = []
    for key in ("schema", "verdict", "selection_optimism"):
        if before[key] != after[key]:
            lines.append(f"{key}: {before[key]!r} before, {after[key]!r} after")
    pairs = zip(before["finalists"], after["finalists"], strict=False)
    if len(before["finalists"]) != len(after["finalists"]):
        lines.append(f"finalists: {len(before['finalists'])} before, {len(after['finalists'])} after")
    for old, new in pairs:
        for key in COMPARED:
            if old[key] != new[key]:
                lines.append(f"{old['arm']}: {key} {old[key]} before, {new[key]} after")
    for old, new in zip(before["differences"], after["differences"], strict=False):
        if {key: old[key] for key in ("estimate", "low", "high")} != {
            key: new[key] for key in ("estimate", "low", "high")
        }:
            lines.append(f"{old['arm']} against {old['against']}: {old} before, {new} after")
    return lines


def main() -> None:
    """Print the differences; exit with code 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    before, after = (json.loads(path.read_text()) for path in (arguments.before, arguments.after))
    for name, document in (("before", before), ("after", after)):
        print(f"{name}: {document['verdict']} ({document['strength']}), {document['winner']}")
    lines = differences(before, after)
    for line in lines:
        print(line)
    if lines:
        raise SystemExit(1)
    print(f"equal: {len(before['finalists'])} finalists, {len(before['differences'])} differences")


if __name__ == "__main__":
    main()

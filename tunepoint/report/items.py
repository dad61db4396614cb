"""The test items of a study, packed so that thousands of them fit into the report."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

from tunepoint.errors import StudyError
from tunepoint.files.foreign_json import mapping, read_json

ITEMS_FILE = "items.json"
"""In the folder of a study."""
MAX_PACKED_BYTES = 8_000_000
"""Of the packed items in a report; where they are more, the prompts stay out."""


def packed_items(folder: Path, most: int = MAX_PACKED_BYTES) -> str | None:
    """Return items.json, compressed with gzip and in base64; None without one.

    Args:
        folder: of the study.
        most: bytes, beyond which the prompts stay out.

    Raises:
        StudyError: the file is damaged.

    """
    path = folder / ITEMS_FILE
    if not path.exists():
        return None
    content = mapping(read_json(path, StudyError, advice="run the study again"))
    packed = _packed(content)
    if len(packed) > most:
        arms = {
            arm: {name: values for name, values in mapping(columns).items() if name != "prompts"}
            for arm, columns in mapping(content.get("arms")).items()
        }
        packed = _packed({**content, "lines": [], "arms": arms})
    return packed


def _packed(content: object) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()

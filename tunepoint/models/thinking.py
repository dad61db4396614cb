"""Thoughts that open reasoning models write into their replies, in the forms they have."""

from __future__ import annotations

import re

_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|seed:think"
_OPEN = re.compile(rf"<(?:{_NAMES})>|\[THINK\]|◁think▷|<\|channel\|>(?:analysis|commentary)", re.IGNORECASE)
_CLOSE = re.compile(
    rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|channel\|>final(?:<\|message\|>)?", re.IGNORECASE
)
_MARKS = re.compile(r"<\|(?:start|end|return|message|im_end)\|>(?:assistant)?|</?answer>", re.IGNORECASE)
"""What chat templates leave around the answer behind the thoughts."""


def without_thinking(text: str) -> str:
    """Return what a reply says after its last thought; empty if it ends within one.

    Servers leave out the opening mark, as it stands in the prompt, so that all up to the last
    closing mark is thought.
    """
    after = text
    for close in _CLOSE.finditer(text):
        after = text[close.end() :]
    opened = _OPEN.search(after)
    if opened is not None:
        after = after[: opened.start()]  # an answer may stand before a last thought that was cut off
    return (_MARKS.sub("", after) if after is not text or opened else after).strip()

"""Every test item by option: answers, scores, tokens and prompts as sent, for people to look through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunepoint.arms.contract import Arm
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.prompting.written import WrittenPromptArm
from tunepoint.data.examples import Example
from tunepoint.files.text import write_json
from tunepoint.models.templates import render
from tunepoint.report.items import ITEMS_FILE
from tunepoint.study.runner import Runner
from tunepoint.trials.trial import Trial

MAX_CHARACTERS = 20_000
"""Of a text; the rest of a longer one is left out."""
CUT = " […]"


def write_items(
    folder: Path,
    trials: Sequence[Trial],
    arms: Sequence[str],
    examples: Sequence[Example] = (),
    prompts: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write items.json: one entry for each item, and for each arm columns in the order of the items.

    Args:
        folder: of the study.
        trials: of the test set; of several answers to an item the first is shown.
        arms: names of the finalists.
        examples: inputs and right answers; without them, what the trials know.
        prompts: for arms that send one, what they sent for each of the examples.

    """
    known = {example.id: example for example in examples}
    ids = [example.id for example in examples] or list(dict.fromkeys(trial.item for trial in trials))
    by_arm: dict[str, dict[str, list[Trial]]] = {arm: defaultdict(list) for arm in arms}
    for trial in trials:
        if trial.arm in by_arm:
            by_arm[trial.arm][trial.item].append(trial)
    places: dict[str, int] = {}
    sent = {arm: [_places(prompt, places) for prompt in own] for arm, own in (prompts or {}).items()}
    slices = {trial.item: trial.slice for trial in trials if trial.slice}
    content = {
        "items": ids,
        "inputs": [_cut(known[item].input) if item in known else None for item in ids],
        "targets": [_cut(known[item].target) if item in known else None for item in ids],
        "slices": [slices.get(item) for item in ids] if slices else None,
        "lines": list(places),
        "arms": {
            arm: _columns([by_item.get(item, []) for item in ids]) | _prompts(sent.get(arm))
            for arm, by_item in by_arm.items()
        },
    }
    write_json(folder / ITEMS_FILE, content, indent=None)


def _places(prompt: str, places: dict[str, int]) -> list[int]:
    """A prompt as positions of its lines: most lines come in many prompts."""
    return [places.setdefault(line, len(places)) for line in _cut(prompt).split("\n")]


def _prompts(sent: list[list[int]] | None) -> dict[str, Any]:
    return {} if sent is None else {"prompts": sent}


def _columns(by_item: Sequence[Sequence[Trial]]) -> dict[str, Any]:
    """The columns of one arm; an item that it did not answer has None."""
    firsts = [trials[0] if trials else None for trials in by_item]
    columns: dict[str, Any] = {
        "answers": [None if t is None else _cut(t.answer or "") for t in firsts],
        "scores": [round(float(np.mean([t.score for t in own])), 4) if own else None for own in by_item],
    }
    optional = {
        "runs": [len(own) for own in by_item] if any(len(own) > 1 for own in by_item) else None,
        "unreadable": [int(t is not None and not t.format_ok) for t in firsts],
        "input_tokens": [None if t is None else t.input_tokens for t in firsts],
        "output_tokens": [None if t is None else t.output_tokens for t in firsts],
        "usd": [None if t is None else t.cost_usd for t in firsts],
        "seconds": [None if t is None else t.seconds for t in firsts],
        "why": [None if t is None else t.why for t in firsts],
    }
    columns |= {name: values for name, values in optional.items() if values is not None and any(values)}
    return columns


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + CUT


def sent_prompts(runner: Runner, finalists: Sequence[Arm]) -> dict[str, list[str]]:
    """Return what each arm that sends one prompt an answer sent, for each test item in their order."""
    split, sent = runner.prepared.split, {}
    for arm in finalists:
        if isinstance(arm, ChatPrompt | WrittenPromptArm):
            rng = np.random.default_rng([runner.study.manifest.seed, 0])  # as Runner.fit
            fitted = arm.fit(runner.task, split.train, rng)
            prompts = fitted.prompts([example.input for example in split.test])
            sent[arm.name] = [
                "\n\n".join(f"[{message.role}]\n{message.content}" for message in render(prompt))
                for prompt in prompts
            ]
    return sent

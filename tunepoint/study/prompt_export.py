"""The best prompt, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from tunepoint.arms.contract import Arm
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.files.text import write_json, write_text
from tunepoint.models.chat import Prompt
from tunepoint.models.templates import messages
from tunepoint.stats.streams import Stream
from tunepoint.study.bench import Runner
from tunepoint.trials.trial import mean_score

PLACE = "{input}"
"""Stands for the input in an exported prompt."""


# -- the prompt, to take away ---------------------------------------------------------------


def export_prompt(runner: Runner, arms: Sequence[Arm]) -> None:
    """Write the best prompt whose words are the same for every input: `prompt.json` and `prompt.txt`.

    `{input}` stands for the input. The first call of the arm is reproduced exactly; a reply
    that cannot be read is asked for once more by Tunepoint, which is in no file.
    """
    fixed = [
        arm
        for arm in arms
        if isinstance(arm, ChatPrompt) and not arm.rung.retrieved and runner.study.dev.of(arm.name)
    ]
    if not fixed:
        return
    best = max(fixed, key=lambda arm: mean_score(runner.study.dev.of(arm.name)))
    rng = runner.study.rng(Stream.FIT)
    template: Prompt = best.fit(runner.task, runner.prepared.split.train, rng).template
    turns = messages(replace(template, input=PLACE))
    content = {
        "arm": best.name,
        "model": best.model.name,
        "dev_score": mean_score(runner.study.dev.of(best.name)),
        "samples": best.rung.samples,
        "messages": [asdict(turn) for turn in turns],
    }
    write_json(runner.study.folder / "prompt.json", content)
    text = "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in turns)
    write_text(runner.study.folder / "prompt.txt", text + "\n")

"""The best prompt, as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tunepoint.arms.contract import Arm
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.prompting.written import FittedWrittenPrompt, WrittenPromptArm
from tunepoint.files.text import write_json, write_text
from tunepoint.models.chat import Message, Prompt
from tunepoint.models.endpoints import TextModel
from tunepoint.models.label_codes import codes_of
from tunepoint.models.templates import LABEL_KEY, render
from tunepoint.stats.streams import Stream
from tunepoint.study.runner import Runner
from tunepoint.trials.trial import mean_score

INPUT_PLACEHOLDER = "{input}"
"""Stands for the input in an exported prompt."""


def export_prompt(runner: Runner, arms: Sequence[Arm]) -> None:
    """Write the best prompt whose words are the same for every input: `prompt.json` and `prompt.txt`.

    `{input}` stands for the input. The first call of the arm is reproduced exactly; the second call
    with which Tunepoint repairs an unreadable reply is in no file.
    """
    dev = runner.study.dev
    fixed = [
        arm
        for arm in arms
        if (isinstance(arm, WrittenPromptArm) or (isinstance(arm, ChatPrompt) and not arm.style.retrieved))
        and dev.of(arm.name)
    ]
    if not fixed:
        return
    best = max(fixed, key=lambda arm: mean_score(dev.of(arm.name)))
    template, messages = _template_of(best, runner)
    content = {
        "arm": best.name,
        "model": best.model.name,
        **_parameters(best, runner.models.facts()),
        "dev_score": mean_score(dev.of(best.name)),
        "samples": best.style.samples if isinstance(best, ChatPrompt) else 1,
        "messages": [asdict(message) for message in messages],
        **_reading(template),
    }
    write_json(runner.study.folder / "prompt.json", content)
    text = "\n\n".join(f"[{message.role}]\n{message.content}" for message in messages)
    write_text(runner.study.folder / "prompt.txt", text + "\n")


def _parameters(arm: ChatPrompt | WrittenPromptArm, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Further keys of the call that the arm was measured with: without those that its server refused."""
    if not isinstance(arm.model, TextModel):
        return {}
    refused = (facts.get(arm.model.name, {}).get("abilities") or {}).get("refused", ())
    parameters = {key: value for key, value in arm.model.settings.parameters if key not in refused}
    return {"parameters": parameters} if parameters else {}


def _template_of(arm: ChatPrompt | WrittenPromptArm, runner: Runner) -> tuple[Prompt, tuple[Message, ...]]:
    """The prompt of an arm without an input, and its messages with placeholders."""
    rng, train = runner.study.rng(Stream.FIT), runner.prepared.split.train
    fitted = arm.fit(runner.task, train, rng)
    if isinstance(fitted, FittedWrittenPrompt):
        return fitted.template, fitted.messages
    return fitted.template, render(replace(fitted.template, input=INPUT_PLACEHOLDER))


def _reading(template: Prompt) -> dict[str, Any]:
    """How a label is read in a reply that is not the label itself."""
    if template.kind != "label" or template.reasoning:
        return {}
    if template.form == "letter":
        return {"answers": dict(zip(codes_of(template.labels), template.labels, strict=True))}
    return {"answer_key": LABEL_KEY} if template.form == "json" else {}

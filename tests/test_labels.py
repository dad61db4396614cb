"""Labels: what people read of an arm, while its name stays the key of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunepoint import Example, Task
from tunepoint.arms.baselines.nearest_examples import FixedExamples, NearestExamples
from tunepoint.arms.baselines.nearest_label import NearestLabelDescription, NearestLabelName
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.hosted.hosted import HostedTuned
from tunepoint.arms.hosted.providers import PROVIDERS
from tunepoint.arms.incumbent import incumbent_arms
from tunepoint.arms.prompting.chains import Chain
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.prompting.styles import SERVER_STYLES


class Model:
    """A chat model that is never called."""

    name, remote = "openai/gpt-5-mini", True


MODEL: Any = Model()
SAMPLES = [Example(f"e{i}", f"message {i}", "ab"[i % 2]) for i in range(10)]


def test_labels_of_prompts_say_what_the_model_is_shown() -> None:
    shown = (
        "no examples",
        "no examples, 3 right answers for their form",
        "no examples, system message",
        "4 examples",
        "12 examples",
        "6 similar examples",
        "6 similar examples",
        "16 similar examples",
        "chain of thought",
        "self-consistency over 5 answers",
    )
    for style, words in zip(SERVER_STYLES, shown, strict=True):
        arm = ChatPrompt(MODEL, style, "tagged")
        assert arm.label == f"gpt-5-mini, {words}"
        assert arm.name == f"openai/gpt-5-mini {style.name}, tagged"
        assert arm.base_model == "openai/gpt-5-mini"


def test_a_searched_prompt_and_a_chain_name_what_they_are() -> None:
    searched = ChatPrompt(MODEL, SERVER_STYLES[0], "plain", instruction="Do it.", title="mini")
    assert searched.label == "mini, optimized prompt, no examples"
    assert searched.name == "mini optimised zero-shot, plain"
    chain = Chain(MODEL, "extract then answer", ("List the facts.",), "plain")
    assert (chain.label, chain.family) == (
        "gpt-5-mini, extract then answer",
        "openai/gpt-5-mini extract then answer",
    )


def test_labels_of_the_encoder_say_that_no_language_model_is_asked() -> None:
    arms = (
        NearestLabelName(MODEL),
        NearestLabelDescription(MODEL),
        FixedExamples(MODEL, 3),
        NearestExamples(MODEL, 8, 0.5),
    )
    assert [arm.label for arm in arms] == [
        "nearest label name (no language model)",
        "nearest label description (no language model)",
        "nearest of 3 examples per label (no language model)",
        "nearest examples (no language model)",
    ]


def test_a_hosted_model_says_what_was_tuned(tmp_path: Path) -> None:
    base = "meta-llama/Llama-4-8B"
    assert HostedTuned(PROVIDERS["together"], base, tmp_path).label == "tuned Llama-4-8B"
    distilled = HostedTuned(
        PROVIDERS["together"], base, tmp_path, distilled=DistilledSet("teacher", "1", (), 0, 0.0)
    )
    assert distilled.label == "tuned Llama-4-8B, distilled"
    assert distilled.name == "together/meta-llama/Llama-4-8B fine-tuned, taught"


@pytest.mark.parametrize(
    ("logs", "labels"),
    [
        (("v1",), ["what runs today"]),
        (("v1", "v2"), ["what runs today (v1)", "what runs today (v2)"]),
    ],
)
def test_what_runs_today_has_a_name_only_beside_another(
    tmp_path: Path, logs: tuple[str, ...], labels: list[str]
) -> None:
    for log in logs:
        rows = ({"input": sample.input, "output": sample.target} for sample in SAMPLES)
        (tmp_path / f"{log}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task.parse(
        {"name": "t", "models": [{"name": f"recorded:{log}.jsonl"} for log in logs]}, folder=tmp_path
    )
    arms, not_run = incumbent_arms(task, SAMPLES, SAMPLES)
    assert [arm.label for arm in arms] == labels and not not_run
    assert [arm.name for arm in arms] == list(logs)

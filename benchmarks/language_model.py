"""A language model of this machine on public tasks: ways of prompting it, the controls, processor time.

DATA is the folder that holds banking77/, clinc150/, snips/ and gsm8k/ as published, ../shared/data unless
given. Of banking77 and CLINC150 the first `--labels` labels by name are kept, with 20 training examples
each; SNIPS asks for JSON, GSM8K for a number. Every way answers the same `--items` test items. `overhead`
is the processor time of answers here over that of llama.cpp asked directly, in the same run, with the same
prompts, whose states are kept from an answer before. `benchmarks/lora.py` tunes such a model.

    python benchmarks/language_model.py [DATA] [--task banking77] [--model embedded:qwen2.5-coder-0.5b]
        [--labels 8] [--items 60] [--forms plain json letter] [--styles few-shot ...]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from public_tasks import PUBLIC_TASKS, PublicTask

from tunepoint.arms.baselines.neighbor_vote import NeighborVote
from tunepoint.arms.baselines.word_counts import WordCountsBaseline
from tunepoint.arms.contract import Arm
from tunepoint.arms.encoder.classifier import FineTuned
from tunepoint.arms.encoder.extraction import SpanTagger
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.prompting.styles import PromptStyle
from tunepoint.models.chat import AnswerForm, Reply
from tunepoint.models.encoder import Encoder
from tunepoint.models.endpoints import TextModel, request_of
from tunepoint.models.gguf.endpoint import GgufEndpoint
from tunepoint.models.gguf.opening import open_gguf
from tunepoint.trials.grading import score_replies, task_scorer

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TIMED_PROMPTS = 4
"""So few that llama.cpp keeps the states of all: what is left is what an answer takes besides its prompt."""
STYLES = (
    PromptStyle("zero-shot"),
    PromptStyle("few-shot", system=True, shots=8),
    PromptStyle("few-shot", system=True, shots=24),
    PromptStyle("retrieved few-shot", system=True, retrieved=6),
    PromptStyle("retrieved few-shot", system=True, retrieved=24),
)
REASONING_STYLES = (
    PromptStyle("zero-shot"),
    PromptStyle("chain of thought", system=True, reasoning=True),
    PromptStyle("self-consistency", system=True, reasoning=True, samples=5),
)
FORMS: tuple[AnswerForm, ...] = ("plain", "json", "letter")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--task", default="banking77", choices=list(PUBLIC_TASKS))
    parser.add_argument("--model", default="embedded:qwen2.5-coder-0.5b")
    parser.add_argument("--labels", type=int, default=8)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--forms", nargs="+", default=["plain"], choices=FORMS)
    parser.add_argument("--styles", nargs="+", help="names of styles, as in the table; all if missing")
    options = parser.parse_args()
    if not (options.data / options.task).is_dir():
        print(f"skipped: no {options.task}/ in {options.data}")
        return
    public = PUBLIC_TASKS[options.task](options.data, options.labels, options.items)
    endpoint, encoder = open_gguf(options.model, Path()), Encoder.load()
    prompts = prompted(public, TextModel(endpoint, remote=False), encoder, options.forms, options.styles)
    arms = [*controls(public, encoder), *prompts]
    print(f"{options.model}, {options.task}, {options.labels} labels, {len(public.test)} items", flush=True)
    measured = [measure(arm, public) for arm in arms]
    timed = [arm for arm in prompts if not arm.style.reasoning]
    overhead = overhead_of(timed[-1], public, endpoint) if timed else None
    print("overhead " + ("not measured" if overhead is None else f"{overhead:.2f}"))
    endpoint.close()
    print(
        json.dumps(
            {
                "benchmark": "language_model",
                "task": options.task,
                "model": options.model,
                "labels": options.labels,
                "rows": measured,
                "overhead": overhead,
            }
        )
    )


def prompted(
    public: PublicTask,
    model: TextModel,
    encoder: Encoder,
    forms: Sequence[AnswerForm],
    names: Sequence[str] | None,
) -> list[ChatPrompt]:
    """The ways of prompting that suit the task; a label comes in each of the forms."""
    kind = public.task.answer.kind
    styles = REASONING_STYLES if kind == "number" else STYLES
    return [
        ChatPrompt(model, style, "plain", encoder.embed, form=form)
        for style in styles
        if names is None or style.name in names
        for form in (forms if kind == "label" else ("plain",))
    ]


def controls(public: PublicTask, encoder: Encoder) -> list[Arm]:
    """What needs no language model, the tuned encoder among them."""
    kind = public.task.answer.kind
    if kind == "number":
        return []
    if kind == "json":
        return [SpanTagger(encoder)]
    votes = [NeighborVote(encoder.embed, count) for count in (6, 24)]
    return [WordCountsBaseline(), *votes, FineTuned(encoder)]


def measure(arm: Arm, public: PublicTask) -> dict[str, object]:
    """Mean score with its standard error, share of readable answers, core seconds of an answer."""
    fitted = arm.fit(public.task, public.train, np.random.default_rng(0))
    started = time.process_time()
    replies: list[Reply] = fitted.answer([example.input for example in public.test])
    seconds = (time.process_time() - started) / len(public.test)
    scores = score_replies(task_scorer(public.task), replies, public.test)
    row = {
        "arm": arm.name,
        "score": float(scores.mean()),
        "error": float(scores.std(ddof=1) / np.sqrt(len(scores))),
        "readable": float(np.mean([reply.format_ok for reply in replies])),
        "core_seconds": seconds,
    }
    print(
        f"{arm.name:60} {row['score']:.3f} ±{row['error']:.3f}  readable {row['readable']:.3f}  "
        f"{seconds:.2f} core s",
        flush=True,
    )
    return row


def overhead_of(arm: ChatPrompt, public: PublicTask, endpoint: GgufEndpoint) -> float:
    """Processor time of some answers through the arm, over that of the same bodies sent to llama.cpp."""
    fitted = arm.fit(public.task, public.train, np.random.default_rng(0))
    inputs = [example.input for example in public.test[:TIMED_PROMPTS]]
    bodies = [endpoint._body(request_of(prompt)) for prompt in fitted.prompts(inputs)]

    def through_the_arm() -> None:
        fitted.answer(inputs)

    def directly() -> None:
        server = endpoint._idle.get()
        for body in bodies:
            server.handle_chat_completions(body)
        endpoint._idle.put(server)

    return processor_seconds(through_the_arm) / processor_seconds(directly)


def processor_seconds(answer: Callable[[], None]) -> float:
    answer()  # the first answers compute what all of them share
    started = time.process_time()
    answer()
    return time.process_time() - started


if __name__ == "__main__":
    main()

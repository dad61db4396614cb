"""A tuned model as a GGUF file for llama.cpp and Ollama, kept only if it answers as it was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunepoint.arms.parity import Parity, parity
from tunepoint.arms.templates import PromptLength, fill_template
from tunepoint.data.split import Split
from tunepoint.errors import ModelError, TaskError
from tunepoint.files.text import write_text
from tunepoint.models.chat import Reply
from tunepoint.models.endpoints import TextModel
from tunepoint.models.gguf.endpoint import GgufEndpoint
from tunepoint.models.gguf.opening import gguf_path
from tunepoint.models.gguf.writing import write_adapter, write_tuned
from tunepoint.models.providers import GGUF_PREFIX, is_gguf
from tunepoint.task.sections import Tune
from tunepoint.task.task import Task
from tunepoint.trials.grading import score_replies, task_scorer

if TYPE_CHECKING:
    from tunepoint.arms.causal.causal import CausalTuned

GGUF_FILE = "model.gguf"
ADAPTER_FILE = "adapter.gguf"
"""What LoRA added alone; llama.cpp applies it to the base's file."""
MODELFILE = "Modelfile"
"""What `ollama create` reads."""


@dataclass(frozen=True)
class WrittenGguf:
    """What llama.cpp answers from the files that were written."""

    parity: Parity
    """Against what was measured, of the file and the prompt where most answers differ."""
    left_out: str | None
    """Why there is no adapter of its own; None where there is one, or LoRA was not used."""


def check_gguf_base(base: Tune) -> None:
    """Refuse to promise a GGUF file of a base that is none.

    Raises:
        TaskError: the base is no model in a GGUF file.

    """
    if not is_gguf(base.base):
        raise TaskError(
            f"--gguf writes the base's own GGUF file with tuned weights, and {base.base} is none; tune "
            '"embedded:NAME" or "gguf:PATH", or convert the merged model with llama.cpp'
        )


def export_gguf(
    base: Tune,
    arms: Sequence[CausalTuned],
    task: Task,
    split: Split,
    measured: Mapping[PromptLength, Sequence[Reply]],
    merged: Path,
    out: Path,
    adapter: Path | None = None,
) -> WrittenGguf:
    """Write `model.gguf` and a Modelfile for Ollama, if llama.cpp answers the validation set as measured.

    An adapter is written too, as `adapter.gguf`, if llama.cpp answers as measured with it and the prompt that
    scores best.

    Args:
        base: a model in a GGUF file.
        arms: the tuned model with each prompt.
        task: instruction and scorer.
        split: training set for the prompts, validation set to compare on.
        measured: the adapter's replies to the validation set, by prompt length.
        merged: directory with the merged weights.
        out: folder for the files.
        adapter: directory with the LoRA adapter; None after full fine-tuning.

    Raises:
        ModelError: `model.gguf` answers otherwise, and was deleted.

    """
    path, origin = out / GGUF_FILE, gguf_path(base.base, task.folder)
    for name in (GGUF_FILE, ADAPTER_FILE, MODELFILE):
        (out / name).unlink(missing_ok=True)  # of an earlier run
    write_tuned(origin, merged, path)
    compared = _compare(path, GgufEndpoint(f"{GGUF_PREFIX}{path}", path), arms, task, split, measured)
    write_text(out / MODELFILE, f"FROM ./{GGUF_FILE}\nPARAMETER temperature 0\n")
    left_out = None
    if adapter is not None:
        path = out / ADAPTER_FILE
        write_adapter(origin, adapter, path)
        endpoint = GgufEndpoint(f"{GGUF_PREFIX}{path}", origin, adapter=path)
        scores = {
            arm.prompt_length: score_replies(task_scorer(task), measured[arm.prompt_length], split.dev).mean()
            for arm in arms
        }
        best = max(arms, key=lambda arm: scores[arm.prompt_length])
        try:
            compared += _compare(path, endpoint, [best], task, split, measured)
        except ModelError as error:  # the whole model is there all the same
            left_out = str(error)
    return WrittenGguf(max(compared, key=lambda same: len(same.differing)), left_out)


def _compare(
    path: Path,
    endpoint: GgufEndpoint,
    arms: Sequence[CausalTuned],
    task: Task,
    split: Split,
    measured: Mapping[PromptLength, Sequence[Reply]],
) -> list[Parity]:
    """Compare a written file with what was measured; delete it if it answers otherwise."""
    served, scoring, compared = TextModel(endpoint, remote=False), task_scorer(task), []
    try:
        for arm in arms:
            template = arm.template(task, split.train)
            replies = served.answer([fill_template(template, example) for example in split.dev])
            same = parity(split.dev, measured[arm.prompt_length], replies, scoring)
            if not same.holds:
                path.unlink()
                raise ModelError(
                    f"{path} does not answer as the model did ({arm.prompt_length} prompt) and was not "
                    f"kept: {same}"
                )
            compared.append(same)
    finally:
        endpoint.close()
    return compared

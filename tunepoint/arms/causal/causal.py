"""Arms of a fine-tuned causal language model: one training run, measured with three prompt lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from numpy.random import Generator

from tunepoint.arms.causal.base import CausalBase
from tunepoint.arms.causal.rows import MIN_TRAINING_EXAMPLES
from tunepoint.arms.contract import Built, Input, LocalFittedArm
from tunepoint.arms.distilled import DistilledSet
from tunepoint.arms.templates import PromptLength, template_for_length
from tunepoint.data.examples import Example
from tunepoint.models.chat import Prompt, Reply
from tunepoint.models.endpoints import TextModel
from tunepoint.task.hosting import Dedicated
from tunepoint.task.task import Task
from tunepoint.trials.trial import ArmKind

LENGTH_IN_WORDS: Mapping[PromptLength, str] = {
    "full": "full prompt",
    "short": "instruction alone",
    "none": "no prompt",
}
"""Part of the arm's label, and of its name in files, so these words stay."""


@dataclass
class FittedCausal(LocalFittedArm):
    """A training run with one prompt."""

    base: CausalBase
    run: str
    template: Prompt
    built: Built

    def answer(self, inputs: Sequence[Input]) -> list[Reply]:
        """Return replies in the order of the inputs."""
        # All runs share one copy of the base, which has the weights of one run at a time.
        with self.base.lock:
            model = TextModel(self.base.answering(self.run, len(inputs)), remote=False)
            return model.answer([replace(self.template, input=text) for text in inputs])


@dataclass
class CausalTuned:
    """An arm: a fine-tuned language model with the full prompt, the instruction alone, or no prompt."""

    base: CausalBase
    prompt_length: PromptLength
    title: str
    """Short name of the base."""
    seeds: int = 3
    seconds_an_example: float = 0.0
    """Expected training time; 0 where the run is another arm's, and not paid for again."""
    distilled: DistilledSet | None = None
    """Answers of a prompted model to train on; the targets of train if None."""
    hosting: Dedicated | None = None
    """Machines that will serve it."""
    instruction: str | None = None
    """Replaces the task's: the one that a search found for the model that wrote the distilled set."""
    min_examples: int = MIN_TRAINING_EXAMPLES
    remote: ClassVar[bool] = False
    name: str = field(init=False)
    family: str = field(init=False)
    kind: ArmKind = field(init=False)

    def __post_init__(self) -> None:
        model = f"{self.title} {self.base.recipe.method}" + (" taught" if self.distilled else "")
        self.family = model if self.prompt_length == "none" else f"{model} + prompt"
        self.name = f"{model}, {LENGTH_IN_WORDS[self.prompt_length]}"
        if self.instruction is not None:
            self.name += ", optimised"
        self.kind = "tuned" if self.prompt_length == "none" else "hybrid"
        self.promptless_name = f"{model}, {LENGTH_IN_WORDS['none']}"

    @property
    def label(self) -> str:
        """The base, who wrote its targets, and the prompt."""
        distilled = ", distilled" if self.distilled else ""
        optimized = "" if self.instruction is None else ", optimized"
        return f"tuned {self.title}{distilled}, {LENGTH_IN_WORDS[self.prompt_length]}{optimized}"

    @property
    def base_model(self) -> str:
        """The directory or hub name of the base."""
        return self.base.base

    def fit(self, task: Task, train: Sequence[Example], rng: Generator) -> FittedCausal:
        """Train on `train`, or load the run of the same data, recipe and `rng`."""
        run, built = self.base.run(task, train, int(rng.integers(2**31)), self.distilled)
        return FittedCausal(self.base, run, self.template(task, train), built)

    @property
    def keep(self) -> Path:
        """Folder of the training runs."""
        return self.base.keep

    def run_name(self, task: Task, train: Sequence[Example], rng: Generator) -> str:
        """Return the name of the folder of the run that `fit` would load or train."""
        return self.base.run_name(task, train, int(rng.integers(2**31)), self.distilled)

    def keeping(self, folder: Path) -> CausalTuned:
        """Return the same arm with its runs in another folder and none in memory."""
        return replace(self, base=self.base.keeping(folder))

    def once(self) -> CausalTuned:
        """Return the same arm with one training run."""
        return replace(self, seeds=1)

    def seconds_for(self, examples: int) -> float:
        """Return the seconds that a training run is expected to take."""
        return self.seconds_an_example * examples

    def template(self, task: Task, train: Sequence[Example]) -> Prompt:
        """Return what all prompts have in common."""
        prompt = template_for_length(task, train, self.prompt_length)
        if self.instruction is not None:
            prompt = replace(prompt, instruction=self.instruction)
        return replace(prompt, max_output_tokens=self.base.max_answer_tokens(train))

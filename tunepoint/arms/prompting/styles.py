"""Styles of prompting a chat model: what the prompt shows, and how the answer comes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tunepoint.models.chat import AnswerForm, AnswerKind
from tunepoint.models.templates import TEMPLATES


@dataclass(frozen=True)
class PromptStyle:
    """One way of prompting, apart from the prompt template."""

    family: str
    system: bool = False
    reasoning: bool = False
    shots: int = 0
    """Demonstrations that every prompt shows, labels in turn."""
    retrieved: int = 0
    """Training examples most similar to the input, shown in its prompt."""
    nearest_last: bool = True
    """Whether the most similar demonstration stands next to the question: models weigh what is near it."""
    samples: int = 1
    """Answers to each input; more than one vote."""
    answers: int = 0
    """Right answers to other inputs, shown without those inputs: how an answer is written."""

    @property
    def shows_examples(self) -> bool:
        """Whether a prompt shows whole examples, fixed or similar ones."""
        return bool(self.shots or self.retrieved)

    @property
    def name(self) -> str:
        """The family with its settings; part of the arm's name in files."""
        parts = [self.family]
        if self.shots or self.retrieved:
            parts.append(f"{self.shots or self.retrieved} {'examples' if self.shots else 'similar'}")
        if self.retrieved and not self.nearest_last:
            parts.append("nearest first")
        if self.samples > 1:
            parts.append(f"{self.samples} samples")
        return ", ".join(parts)

    @property
    def label(self) -> str:
        """What it shows the model, in plain words."""
        if self.shots or self.retrieved:
            return f"{self.shots} examples" if self.shots else f"{self.retrieved} similar examples"
        if self.answers:
            return f"no examples, {self.answers} right answers for their form"
        if self.samples > 1:
            return f"self-consistency over {self.samples} answers"
        if self.reasoning:
            return "chain of thought"
        return "no examples, system message" if self.system else "no examples"


ANSWER_FORM = "answer form"
"""Family of the prompts that show how an answer is written: what tuning learns besides the task."""
SERVER_STYLES = (
    PromptStyle("zero-shot"),
    PromptStyle(ANSWER_FORM, system=True, answers=3),
    PromptStyle("system message", system=True),
    PromptStyle("few-shot", system=True, shots=4),
    PromptStyle("few-shot", system=True, shots=12),
    PromptStyle("retrieved few-shot", system=True, retrieved=6),
    PromptStyle("retrieved few-shot", system=True, retrieved=6, nearest_last=False),
    PromptStyle("retrieved few-shot", system=True, retrieved=16),
    PromptStyle("chain of thought", system=True, reasoning=True),
    PromptStyle("self-consistency", system=True, reasoning=True, samples=5),
)
"""What is tried with a model behind a server, cheapest first; each in several prompt templates."""
MACHINE_STYLES = (
    PromptStyle("zero-shot"),
    PromptStyle(ANSWER_FORM, system=True, answers=3),
    PromptStyle("system message", system=True),
    PromptStyle("few-shot", system=True, shots=12),
    PromptStyle("few-shot", system=True, shots=24),
    PromptStyle("retrieved few-shot", system=True, retrieved=6),
    PromptStyle("chain of thought", system=True, reasoning=True),
    PromptStyle("self-consistency", system=True, reasoning=True, samples=5),
)
"""The same for a model on this machine's processor, where tokens cost seconds.

Fixed demonstrations are computed once for all inputs, so there may be many of them.
"""
SLOW_FAMILIES = ("chain of thought", "self-consistency")
"""Of a model on this machine: tried only where the task names them ([[models]] styles)."""
DEAR_FAMILIES = ("retrieved few-shot", *SLOW_FAMILIES)
"""Of a model on this machine: every answer computes hundreds of tokens anew, so one template has to do."""
PLAIN_TEMPLATE = "plain"
"""The template in which a label is asked for in more than one form."""
MACHINE_TEMPLATES = (PLAIN_TEMPLATE, "sections", "terse")
"""Templates that are tried with a model on this machine."""
OTHER_FORMS: tuple[AnswerForm, ...] = ("json", "letter")
"""Forms of a label beside the plain one."""


@dataclass(frozen=True)
class Variant:
    """A style in one template, with the form of its answer."""

    style: PromptStyle
    template: str
    form: AnswerForm


def machine_variants(kind: AnswerKind, families: Collection[str]) -> list[Variant]:
    """Return what is tried with a model on this machine.

    Args:
        kind: of the answers; labels may come plain, in JSON or as letters, and the validation set decides.
        families: of the styles to try.

    """
    variants = []
    for style in MACHINE_STYLES:
        if style.family not in families:
            continue
        dear = style.family in DEAR_FAMILIES
        templates = MACHINE_TEMPLATES[:1] if dear else MACHINE_TEMPLATES
        variants += [Variant(style, template, "plain") for template in templates]
        if kind == "label" and not dear:
            variants += [Variant(style, PLAIN_TEMPLATE, form) for form in OTHER_FORMS]
    return variants


def server_variants(kind: AnswerKind, families: Collection[str]) -> list[Variant]:
    """Return what is tried with a model behind a server.

    Few servers confine a plain label, and most a JSON schema: so labels come in JSON, and in the first
    template plainly as well.

    Args:
        kind: of the answers.
        families: of the styles to try.

    """
    styles = [style for style in SERVER_STYLES if style.family in families]
    variants = []
    for template in TEMPLATES:
        for style in styles:
            asked = kind == "label" and not style.reasoning
            variants.append(Variant(style, template, "json" if asked else "either"))
            if asked and template == PLAIN_TEMPLATE:
                variants.append(Variant(style, template, "plain"))
    return variants


def former_variants(families: Collection[str]) -> list[Variant]:
    """Return the prompts that ask for a plain label, and confine it to JSON where a server can.

    Older versions sent no others to servers; their demonstrations were plain although the reply was JSON.
    """
    styles = [style for style in SERVER_STYLES if style.family in families]
    return [Variant(style, template, "either") for template in TEMPLATES for style in styles]

"""The prompts that are tried with each chat model of a task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tunepoint.arms.contract import Arm, NotRun
from tunepoint.arms.prompting.chains import CHAINS, Chain
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.prompting.styles import (
    MACHINE_STYLES,
    SERVER_STYLES,
    SLOW_FAMILIES,
    Variant,
    former_variants,
    machine_variants,
    server_variants,
)
from tunepoint.arms.prompting.written import WrittenPromptArm
from tunepoint.errors import TaskError, nearest
from tunepoint.models.chat import ChatModel, Embed, Message
from tunepoint.models.endpoints import TextModel
from tunepoint.models.providers import LOCAL_PREFIX, is_gguf, short_names
from tunepoint.models.templates import TEMPLATES
from tunepoint.task.sections import EFFORT, ModelName
from tunepoint.task.task import Task
from tunepoint.trials.conventions import has_conventions


def chat_arms(
    task: Task, chats: Sequence[ChatModel], embed: Embed, measured: Collection[str] = ()
) -> tuple[Arm, ...]:
    """Return every way of prompting every chat model.

    Args:
        task: names the models, the styles to try with each, and chains of its own.
        chats: the open models.
        embed: what similar examples are.
        measured: names of the arms that the study has measured already. One of an older version goes on
            with the prompts of that version.

    Raises:
        TaskError: a style that does not exist.

    """
    chains = {**CHAINS, **{chain.name: chain.steps for chain in task.chains}}
    settings = {model.name: model for model in task.models}
    written = _written(task, settings)
    arms: list[Arm] = []
    for model, title in _with_efforts(chats, settings):
        named = settings[model.name]
        families = _families(named, chains, task)
        variants = _variants(model.name, task, families)
        current = _prompts(model, title, named, variants, embed)
        former = _prompts(model, title, named, former_variants(families), embed)
        former_names = {arm.name for arm in former} - {arm.name for arm in current}
        arms += current if former_names.isdisjoint(measured) else former
        decodes, hosting = named.decodes, named.hosting
        arms += [
            WrittenPromptArm(
                model, prompt.name, written[prompt.name], title=title, decodes=decodes, hosting=hosting
            )
            for prompt in task.prompts
            if prompt.models is None or model.name in prompt.models
        ]
        arms += [
            Chain(model, way, chains[way], template, title=title, decodes=decodes, hosting=hosting)
            for way in chains
            if way in families
            for template in _chain_templates(model.name)
        ]
    return tuple(arms)


def _with_efforts(
    chats: Sequence[ChatModel], named: Mapping[str, ModelName]
) -> Iterator[tuple[ChatModel, str]]:
    """Each model with its title; one that is compared at several efforts comes once for each."""
    for model, title in zip(chats, short_names([model.name for model in chats]), strict=True):
        efforts = named[model.name].efforts
        if not efforts:
            yield model, title
        elif isinstance(model, TextModel):
            for effort in efforts:
                yield model.with_parameter(EFFORT, effort), f"{title} ({effort} effort)"


def _written(task: Task, models: Collection[str]) -> dict[str, tuple[Message, ...]]:
    """The messages of the task's own prompts.

    Raises:
        TaskError: a prompt names a model that the task does not have, or cannot be read.

    """
    for prompt in task.prompts:
        for name in prompt.models or ():
            if name not in models:
                where = f"[[prompts]] {prompt.name}: no model {name!r} in [[models]]"
                raise TaskError(f"{where}; {nearest(name, models)}")
    return task.written_messages()


def _prompts(
    model: ChatModel, title: str, named: ModelName, variants: Iterable[Variant], embed: Embed
) -> list[Arm]:
    return [
        ChatPrompt(
            model,
            variant.style,
            variant.template,
            embed,
            form=variant.form,
            title=title,
            decodes=named.decodes,
            hosting=named.hosting,
        )
        for variant in variants
    ]


def _families(model: ModelName, chains: Iterable[str], task: Task) -> tuple[str, ...]:
    """The families to try with a model: those that the task names, else all that suit it and the task."""
    known = _known(model, chains, task)
    if model.styles is None:
        slow = (*SLOW_FAMILIES, *CHAINS) if is_gguf(model.name) else ()
        return tuple(family for family in known if family not in slow)
    for family in model.styles:
        if family not in known:
            raise TaskError(
                f"[[models]] styles of {model.name}: {family!r} is none; {nearest(family, known)}"
            )
    return model.styles


def _known(model: ModelName, chains: Iterable[str], task: Task) -> tuple[str, ...]:
    """All families that a model may be prompted in; how an answer is written counts in some metrics only."""
    styles = MACHINE_STYLES if is_gguf(model.name) else SERVER_STYLES
    families = [style.family for style in styles if not style.answers or has_conventions(task)]
    return tuple(dict.fromkeys([*families, *chains]))


def _variants(name: str, task: Task, families: Sequence[str]) -> Sequence[Variant]:
    if is_gguf(name):
        return machine_variants(task.answer.kind, families)
    if name.startswith(LOCAL_PREFIX):
        return former_variants(families)  # it confines a label that it writes plainly, as they ask for it
    return server_variants(task.answer.kind, families)


def _chain_templates(name: str) -> Sequence[str]:
    """A chain takes several calls for an answer, so on this machine one template has to do."""
    return tuple(TEMPLATES)[:1] if is_gguf(name) else tuple(TEMPLATES)


def left_out(task: Task, chats: Sequence[ChatModel]) -> list[NotRun]:
    """Return the ways of prompting that are not tried: too slow here, or not named by the task."""
    settings = {model.name: model for model in task.models}
    titles = short_names([model.name for model in chats])
    not_run = []
    for model, title in zip(chats, titles, strict=True):
        named = settings[model.name]
        missing = [
            family for family in _known(named, CHAINS, task) if family not in _families(named, CHAINS, task)
        ]
        why = (
            "they write hundreds of tokens an answer, on this machine many seconds each; [[models]] styles "
            "names what to try"
            if named.styles is None
            else "[[models]] styles leaves them out"
        )
        if missing:
            not_run.append(NotRun(f"{title}: {', '.join(missing)}", why))
    return not_run


def retrieved_counts(names: Sequence[str]) -> list[int]:
    """Return how many similar examples the prompts of these models show: 6, or 6 and 16."""
    styles = [style for name in names for style in (MACHINE_STYLES if is_gguf(name) else SERVER_STYLES)]
    return sorted({style.retrieved for style in styles if style.retrieved})

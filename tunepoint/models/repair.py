"""A reply that cannot be read is not an inability: say what was wrong, and ask once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunepoint.models.chat import ChatModel, Message, Prompt, Reply
from tunepoint.models.parsing import EMPTY_REPLY
from tunepoint.models.templates import complaint


def answer_with_repair(model: ChatModel, prompts: Sequence[Prompt]) -> list[Reply]:
    """Replies in the order of the prompts, each unreadable one asked for once more.

    Both calls are in the usage of a repaired reply. Refusals and calls that failed are not
    asked again: they are no matter of format.
    """
    replies = model.answer(prompts)
    broken = [i for i, reply in enumerate(replies) if not reply.format_ok and _readable(reply)]
    if not broken:
        return replies
    again = [_complained(prompts[i], replies[i]) for i in broken]
    for i, second in zip(broken, model.answer(again), strict=True):
        usage = replies[i].usage + second.usage
        chosen = second if second.format_ok else replies[i]
        replies[i] = replace(chosen, usage=usage, repaired=second.format_ok)
    return replies


def _readable(reply: Reply) -> bool:
    return bool(reply.text) or reply.error == EMPTY_REPLY


def _complained(prompt: Prompt, reply: Reply) -> Prompt:
    said = Message("assistant", reply.text or "(nothing)")
    why = Message("user", complaint(prompt, reply.error or "it does not hold an answer"))
    return replace(prompt, history=(*prompt.history, said, why))

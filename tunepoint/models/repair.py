"""Ask once more for an answer that cannot be read, and say what was wrong with it.

A model that misses the format may still know the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunepoint.models.chat import ChatModel, Message, Prompt, Reply
from tunepoint.models.parsing import EMPTY_REPLY
from tunepoint.models.templates import complaint


def answer_with_repair(model: ChatModel, prompts: Sequence[Prompt]) -> list[Reply]:
    """Return a reply to each prompt, the unreadable ones asked for once more.

    The usage of a repaired reply covers both calls. Refusals and failed calls are not repeated:
    their format is not at fault.
    """
    replies = model.answer(prompts)
    unreadable = [i for i, reply in enumerate(replies) if not reply.format_ok and _has_text(reply)]
    if not unreadable:
        return replies
    repairs = [_repair_prompt(prompts[i], replies[i]) for i in unreadable]
    for i, second in zip(unreadable, model.answer(repairs), strict=True):
        usage = replies[i].usage + second.usage
        reply = second if second.format_ok else replies[i]
        replies[i] = replace(reply, usage=usage, repaired=second.format_ok)
    return replies


def _has_text(reply: Reply) -> bool:
    """Return whether the model answered at all, be it with nothing."""
    return bool(reply.text) or reply.error == EMPTY_REPLY


def _repair_prompt(prompt: Prompt, reply: Reply) -> Prompt:
    """Return the prompt continued by the reply and a complaint about it."""
    answer = Message("assistant", reply.text or "(nothing)")
    request = Message("user", complaint(prompt, reply.error or "it does not hold an answer"))
    return replace(prompt, history=(*prompt.history, answer, request))

"""What a server can be asked for, learned from its refusals: one table for studies and the gateway."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

MAX_WORDS_CHARACTERS = 4_000
"""Characters of a refusal that are searched; a server may answer with a whole web page."""

_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|too (large|long|many (input )?tokens)|reduce (the|your)|"
    r"maximum (input|prompt|sequence) length|exceeds? the (model|maximum|limit)",
)
_BAD_KEY = re.compile(
    r"(api|access|auth\w*)[ _-]?(key|token).{0,40}"
    r"(not valid|invalid|incorrect|expired|revoked|missing|not found|required)|"
    r"(invalid|incorrect|expired|missing|no) (api|access|auth\w*)[ _-]?(key|token)|unauthenticated"
)


@dataclass(frozen=True)
class Abilities:
    """Which parameters a server accepts; each is given up once at most."""

    schema: bool = True
    logprobs: bool = True
    temperature: bool = True
    seed: bool = True
    token_parameter: str = "max_completion_tokens"
    stream_options: bool = True
    refused: tuple[str, ...] = ()
    """Parameters of the task's own that the server does not take."""

    def without(self, words: str, parameters: Collection[str] = ()) -> Abilities | None:
        """Return the abilities left after a refusal in these words, or None if it is about something else.

        Servers share no error codes for this, so the refusal is searched for the parameters' names;
        all that it names are given up at once. A request that is too long is not the parameter's fault.

        Args:
            words: of the server.
            parameters: names of further parameters of the request.

        """
        words = words.casefold()[:MAX_WORDS_CHARACTERS]
        if is_too_long(words):
            return None
        refused: dict[str, Any] = {
            name: False
            for name, parameters in _PARAMETERS.items()
            if getattr(self, name) and any(word in words for word in parameters)
        }
        fewer = replace(self, **refused)
        own = [name for name in parameters if name not in self.refused and _names(words, name)]
        # What Tunepoint sends by itself goes first: "temperature and top_p cannot both be specified".
        if own and not (refused.keys() & {"temperature", "seed"}):
            return replace(self, refused=(*self.refused, *own))
        # OpenAI's newer models know max_completion_tokens only, older servers max_tokens only.
        if fewer == self and (self.token_parameter in words or OLD_TOKEN_PARAMETER in words):
            fewer = self.with_old_token_parameter()
        return None if fewer == self else fewer

    def with_old_token_parameter(self) -> Abilities:
        """Return the abilities of a server that knows `max_tokens`."""
        return replace(self, token_parameter=OLD_TOKEN_PARAMETER)


OLD_TOKEN_PARAMETER = "max_tokens"
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "schema": (
        "response_format",
        "json_schema",
        "schema",
        "guided",
        "structured output",
        "grammar",
        "output_config",
    ),
    "logprobs": ("logprob",),
    "temperature": ("temperature",),
    "seed": ("seed",),
    "stream_options": ("stream_options", "include_usage"),
}
"""Ability -> words of refusals that are about it, in lower case."""


ALIASES = {"reasoning_effort": "effort"}
"""Name of a parameter -> how some providers call it."""


def _names(words: str, parameter: str) -> bool:
    """Whether a refusal names a parameter, as a word of its own."""
    names = (parameter, ALIASES.get(parameter, parameter))
    return any(re.search(rf"(?<![\w]){re.escape(name.casefold())}(?![\w])", words) for name in names)


_ABOUT_VALUE = re.compile(
    r"(unsupported|invalid|illegal|unknown) value|supported values|(must|should) be one of|expected one of|"
    r"(is|are) not one of|not a valid|input should be"
)


def refused_value(words: str, parameters: Mapping[str, Any]) -> str | None:
    """Return the parameter whose value a refusal is about, not the parameter itself; None if there is none.

    Args:
        words: of the server.
        parameters: of the request, with their values.

    """
    words = words.casefold()[:MAX_WORDS_CHARACTERS]
    own = any(word in words for ability in ("temperature", "seed") for word in _PARAMETERS[ability])
    if _ABOUT_VALUE.search(words) is None or own:  # what Tunepoint sends by itself goes first
        return None
    lists_others = "input should be" in words or "supported values" in words or "one of" in words
    named = (
        name
        for name, value in parameters.items()
        if _names(words, name) and (lists_others or _names(words, str(value)))
    )
    return next(named, None)


def is_too_long(words: str) -> bool:
    """Whether a refusal says that the request has too many tokens."""
    return _TOO_LONG.search(words.casefold()[:MAX_WORDS_CHARACTERS]) is not None


def is_bad_key(words: str) -> bool:
    """Whether a refusal is about the key: some providers answer HTTP 400 to a wrong one."""
    return _BAD_KEY.search(words.casefold()[:MAX_WORDS_CHARACTERS]) is not None


_WORDS_KEYS = (
    *("error", "errors", "message", "Message", "detail"),
    *("error_message", "msg", "description", "title"),
)
"""Keys under which servers put the words of an error."""


def refusal_words(body: Any) -> str:
    """Return what a server says in an error, whatever its shape: an object, a list, text or a web page."""
    if isinstance(body, str):
        return " ".join(re.sub(r"<[^<>]{0,200}>", " ", body[:MAX_WORDS_CHARACTERS]).split())
    if isinstance(body, Mapping):
        for key in _WORDS_KEYS:
            words = refusal_words(body.get(key))
            if words:
                words = _with_field(words, body)
                metadata = body.get("metadata")  # OpenRouter hands on the provider's own words there
                raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
                return f"{words}: {refusal_words(raw)}" if raw else words
        return ""
    if isinstance(body, (list, tuple)):
        return "; ".join(filter(None, (refusal_words(part) for part in body[:10])))
    return ""


def _with_field(words: str, body: Mapping[str, Any]) -> str:
    """Put the field that an error is about before its words: it stands in `param` or in `loc`."""
    place = body.get("param") or body.get("loc")
    if isinstance(place, (list, tuple)):
        place = ".".join(str(part) for part in place[:10])
    named = isinstance(place, str) and place and place not in words
    return f"{place}: {words}" if named else words

"""What the store takes of a request and of feedback: without personal data, and what no database takes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from tunepoint.capture.records import MAX_SLICE_LENGTH, CapturedRequest, Feedback
from tunepoint.capture.redaction import Redactor, for_one_request, redacted

CLEANED_FIELDS = ("id", "task", "arm", "model", "user", "key", "copy_of", "origin", "licence")
"""Fields of a request that hold no prose: cleaned for the database, not redacted."""


def cleaned(request: CapturedRequest, redact: Redactor | None) -> CapturedRequest:
    """Return a request as it may be stored.

    Args:
        request: as it was captured.
        redact: removes personal data; None keeps it.

    """
    # Its texts share one time budget.
    clean = partial(_clean_text, redact=None if redact is None else for_one_request(redact))
    names: dict[str, Any] = {
        name: _storable(value) for name in CLEANED_FIELDS if (value := getattr(request, name))
    }
    return replace(
        request,
        **names,
        slice=None if request.slice is None else clean(request.slice)[:MAX_SLICE_LENGTH],
        input=clean(request.input),
        output=clean(request.output),
        answer=None if request.answer is None else clean(request.answer),
        error=None if request.error is None else clean(request.error),
        messages=None if request.messages is None else redacted(request.messages, clean),
        parameters=redacted(request.parameters, clean),
    )


def cleaned_feedback(feedback: Feedback, redact: Redactor | None) -> Feedback:
    """Return feedback as it may be stored; `redact` is as for `cleaned`."""
    clean = partial(_clean_text, redact=redact)
    correction, comment = feedback.correction, feedback.comment
    return replace(
        feedback,
        request=_storable(feedback.request),
        key=None if feedback.key is None else _storable(feedback.key),
        correction=None if correction is None else clean(correction),
        comment=None if comment is None else clean(comment),
    )


def _clean_text(text: str, redact: Redactor | None) -> str:
    text = _storable(text)
    return text if redact is None else redact(text)


def _storable(text: str) -> str:
    """Remove NUL and lone surrogates, which no database takes."""
    text = text.replace("\x00", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")

"""The two files of OpenAI's batches: requests in one, answers in the other, joined by `custom_id`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunepoint.files.foreign_json import mapping

Json = Mapping[str, Any]
NO_PARTNER = "partner"
"""Key of an entry of a batch that stays alone; its value says why."""
CHATS = ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/chat/completions", "/responses")


def joined(entries: Iterable[tuple[str, Json]]) -> Iterator[tuple[str, Json]]:
    """Yield calls with request and response; batches may have them on different lines and in different files.

    Half a call comes last, with the reason under the key `NO_PARTNER`.
    """
    requests: dict[str, tuple[str, Json]] = {}
    answers: list[tuple[str, Json]] = []
    repeated: set[str] = set()
    for place, row in entries:
        name = row.get("custom_id")
        if name is None or "request" in row:
            yield place, row
        elif "body" in row:
            if json.dumps(requests.get(str(name), ("", row))[1]) != json.dumps(row):
                repeated.add(str(name))
            requests.setdefault(str(name), (place, row))
        else:
            answers.append((place, row))
    answered = {str(row["custom_id"]) for _, row in answers}
    for place, row in answers:
        name = str(row["custom_id"])
        yield place, _call(row, requests.get(name, ("", {}))[1], name in repeated)
    for name, (place, _) in requests.items():
        if name not in answered:
            yield place, {NO_PARTNER: "that no answer has: give the batch's file of answers too"}


def _call(answer: Json, request: Json, ambiguous: bool) -> Json:
    if ambiguous:
        return {NO_PARTNER: "of which several different requests have the custom_id"}
    if not request:
        return {NO_PARTNER: "that no request has: give the batch's file of requests too"}
    url = str(request.get("url") or CHATS[0])
    if not url.endswith(CHATS):
        return {NO_PARTNER: f"calls of {url}"}
    return {**answer, "request": mapping(request["body"])}

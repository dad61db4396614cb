"""Results of promptfoo as trials."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunepoint.errors import DataError
from tunepoint.files.foreign_json import amount, count, first_of, json_values, mapping, number
from tunepoint.files.left_out import LeftOut
from tunepoint.trials.imported import (
    MAX_AMOUNT,
    MAX_ERROR_CHARACTERS,
    ImportedResults,
    ResultReader,
    share,
    short_name,
)
from tunepoint.trials.trial import Trial

Json = Mapping[str, Any]
RESULT_KEYS = {"provider", "response", "score", "vars"}
"""A result has some of these."""
CALL_FAILED = 2
"""`failureReason` of a result whose call failed; 1 is that of an answer that failed its assertions."""
STRIPPED = "[output stripped]"
"""What promptfoo writes instead of an answer if it is told to strip answers."""
SESSION_VARIABLES = ("_conversation", "sessionId")
"""Variables that promptfoo adds to a test; they differ between repetitions of the same one."""
CACHED_NOTE = (
    "Some answers came from promptfoo's cache, so their cost and latency are unknown. To measure them, "
    "evaluate again with --no-cache."
)


def promptfoo(path: Path, score: str | None = None) -> ImportedResults:
    """Read `promptfoo eval -o results.json` or `results.jsonl`.

    Each provider with each prompt becomes an arm, each set of variables an item.

    Args:
        path: of the file.
        score: name of a metric of the assertions, to use instead of the score of the whole test.

    Raises:
        DataError: no such file, not JSON, no results of promptfoo, or scores on another scale than 0..1.

    """
    reader = ResultReader()
    results = sorted(_results(path), key=lambda result: number(result[1].get("testIdx")) or 0.0)
    columns = _columns(results)
    for place, result in results:
        reader.read(place, lambda result=result: _trial(result, columns, score))  # type: ignore[misc]
    if any(_from_cache(result) for _, result in results):
        reader.results.notes.append(CACHED_NOTE)
    return reader.finish()


def _results(path: Path) -> Iterator[tuple[str, Json]]:
    """Yield the results in a file with their places, and empty objects for entries that are none.

    They stand in an object, of which older versions have one and newer ones two, in a list, or each on a
    line of its own.
    """
    for place, value in json_values(path, DataError):
        content = mapping(mapping(value).get("results")) or mapping(value)
        rows = content.get("results", [content]) if isinstance(value, dict) else value
        for position, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
            yield place if rows == [content] else f"{place}, result {position}", mapping(row)


def _trial(result: Json, columns: Columns, score: str | None) -> Trial:
    """Return a result as a trial.

    Raises:
        LeftOut: it lacks its provider, item or score.

    """
    if not RESULT_KEYS & result.keys():
        raise LeftOut("that are no results of `promptfoo eval -o results.json`")
    response = result.get("response")
    output = response if isinstance(response, str) else mapping(response).get("output")
    tokens = mapping(mapping(response).get("tokenUsage"))
    fault = _failure(result, output)
    cached = _from_cache(result)
    return Trial(
        arm=_arm(result, columns),
        item=_item(result),
        score=share(_score(result, score)),
        format_ok=fault is None,
        input_tokens=count(tokens.get("prompt")),
        output_tokens=count(tokens.get("completion")),
        seconds=None if cached else _seconds(result),
        # A cost of 0 means that promptfoo knows no price, or that the answer came from its cache.
        cost_usd=amount(result.get("cost"), MAX_AMOUNT) or None,
        answer=None if output == STRIPPED else _as_text(output),
        error=fault,
    )


def _score(result: Json, name: str | None) -> Any:
    """Return the score of the whole test, or that of a metric.

    Raises:
        LeftOut: there is no metric of this name.

    """
    if name is None:
        return result.get("score")
    metrics = mapping(result.get("namedScores"))
    if name not in metrics:
        raise LeftOut(f"without the metric {name!r} (there are: {', '.join(metrics) or 'none'})")
    return metrics[name]


def _failure(result: Json, output: Any) -> str | None:
    """Return why the call failed; None if it did not.

    `error` also holds the reason for which an answer failed its assertions: such an answer is only wrong.
    """
    error = mapping(result.get("response")).get("error")
    if output is None or result.get("failureReason") == CALL_FAILED:
        error = error or result.get("error") or ("no answer" if output is None else "the call failed")
    return None if not error else (_as_text(error) or "")[:MAX_ERROR_CHARACTERS]


def _from_cache(result: Json) -> bool:
    return mapping(result.get("response")).get("cached") is True


def _seconds(result: Json) -> float | None:
    milliseconds = amount(result.get("latencyMs"), MAX_AMOUNT)
    return None if milliseconds is None else milliseconds / 1_000


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- arms and items ----------------------------------------------------------------------------------

Columns = Mapping[str, list[str]]
"""Name of a provider with a prompt -> the columns of promptfoo's table that have it."""


def _columns(results: list[tuple[str, Json]]) -> Columns:
    columns: dict[str, list[str]] = defaultdict(list)
    for _, result in results:
        name, column = _provider_and_prompt(result), _column(result)
        if column is not None and column not in columns[name]:
            columns[name].append(column)
    return columns


def _column(result: Json) -> str | None:
    column = first_of(result, "promptIdx", "promptId")
    return None if column is None else str(column)


def _arm(result: Json, columns: Columns) -> str:
    """Return the provider and the prompt; a number too where several columns have the same two.

    Raises:
        LeftOut: the provider is missing, so the result could be anybody's.

    """
    if _provider(result) is None:
        raise LeftOut("without a provider")
    name, column = _provider_and_prompt(result), _column(result)
    same = columns.get(name, [])
    position = same.index(column) if column in same else 0
    return f"{name} ({position + 1})" if position else name


def _provider_and_prompt(result: Json) -> str:
    prompt = result.get("prompt")
    words = prompt if isinstance(prompt, str) else first_of(mapping(prompt), "label", "raw")
    return f"{_provider(result)}, {short_name(str(words or _column(result) or ''))}"


def _provider(result: Json) -> str | None:
    provider = result.get("provider")
    name = (
        provider
        if isinstance(provider, str)
        else mapping(provider).get("label") or mapping(provider).get("id")
    )
    return str(name) if name else None


def _item(result: Json) -> str:
    """Return the variables of the test, or its number if it has none.

    `promptfoo eval --repeat` gives each repetition a number of its own, but the same variables.

    Raises:
        LeftOut: neither is known.

    """
    variables = mapping(result.get("vars")) or mapping(mapping(result.get("testCase")).get("vars"))
    own = {key: value for key, value in variables.items() if key not in SESSION_VARIABLES}
    if own:
        return short_name(json.dumps(own, sort_keys=True, ensure_ascii=False))
    test = first_of(result, "testIdx", "testId")
    if test is None:
        raise LeftOut("without variables and number of the test")
    return str(test)

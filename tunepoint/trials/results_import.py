"""Read the results of other evaluation tools as trials."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunepoint.errors import DataError
from tunepoint.files.text import read_text
from tunepoint.trials.trial import Trial


def promptfoo(path: Path) -> Iterator[Trial]:
    """Read `promptfoo eval -o results.json`: an arm for each provider and prompt, an item for each test."""
    content = _json_object(path)
    # Older versions write the results themselves, newer ones an object around them.
    results = (
        content["results"]["results"] if isinstance(content.get("results"), dict) else content["results"]
    )
    for number, result in enumerate(results):
        response = result.get("response") or {}
        tokens = response.get("tokenUsage") or {}
        output = response.get("output")
        error = result.get("error") or response.get("error")
        yield Trial(
            arm=_promptfoo_arm(result),
            item=_promptfoo_item(result, number),
            score=_clipped(float(result["score"])),
            format_ok=not error,
            input_tokens=tokens.get("prompt"),
            output_tokens=tokens.get("completion"),
            seconds=None if result.get("latencyMs") is None else float(result["latencyMs"]) / 1_000,
            cost_usd=result.get("cost"),
            answer=output if isinstance(output, str) else json.dumps(output),
            error=None if not error else str(error)[:MAX_ERROR_CHARACTERS],
        )


def _promptfoo_arm(result: Mapping[str, Any]) -> str:
    """Return the provider and the prompt of a result, of which either may be an object or missing."""
    provider, prompt = result.get("provider") or {}, result.get("prompt") or {}
    name = provider.get("label") or provider.get("id") if isinstance(provider, dict) else provider
    label = str(prompt.get("label") or prompt.get("raw") or result.get("promptIdx", ""))
    return f"{name}, {label[:MAX_LABEL_CHARACTERS]}"


def _promptfoo_item(result: Mapping[str, Any], number: int) -> str:
    """Return the number of the test; in files without one its variables, else the number of the result."""
    other = number if "vars" not in result else json.dumps(result["vars"], sort_keys=True)
    return str(result.get("testIdx", other))


INSPECT_SCORES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Inspect's letters: correct, incorrect, partial, no answer."""
MAX_LABEL_CHARACTERS = 80
"""Characters of a prompt in the name of its arm."""
MAX_ERROR_CHARACTERS = 300


def inspect_log(path: Path) -> Iterator[Trial]:
    """Read a log of Inspect, `.json` or `.eval`: an arm for its model, an item for each sample."""
    header, samples = _packed_log(path) if zipfile.is_zipfile(path) else _plain_log(path)
    arm = f"{header['eval']['model']}, {header['eval']['task']}"
    for sample in samples:
        scores = sample.get("scores") or {}
        if not scores:
            continue  # a sample that was stopped before it was scored
        value = next(iter(scores.values()))["value"]
        output = sample.get("output") or {}
        usages = list((sample.get("model_usage") or {}).values())
        content = ((output.get("choices") or [{}])[0].get("message") or {}).get("content")
        score = INSPECT_SCORES.get(value) if isinstance(value, str) else float(value)
        if score is None:
            raise DataError(
                f"{path}: sample {sample['id']!r} has the score {value!r}; expected C, I, P, N or 0 to 1"
            )
        epoch = int(sample.get("epoch") or 1)
        yield Trial(
            arm=arm,
            item=str(sample["id"]),
            score=_clipped(score),
            decode=str(epoch - 1) if epoch > 1 else None,
            input_tokens=sum(int(usage.get("input_tokens") or 0) for usage in usages) or None,
            output_tokens=sum(int(usage.get("output_tokens") or 0) for usage in usages) or None,
            seconds=output.get("time"),
            answer=output.get("completion") or (content if isinstance(content, str) else None),
            error=str(sample["error"])[:MAX_ERROR_CHARACTERS] if sample.get("error") else None,
        )


def _clipped(score: float) -> float:
    """Return a score within 0..1, which is what a trial may have."""
    return min(1.0, max(0.0, score))


def _plain_log(path: Path) -> tuple[dict[str, Any], list[Any]]:
    header = _json_object(path)
    return header, list(header.get("samples") or [])


def _packed_log(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Return the header and the samples of an `.eval` file.

    Raises:
        DataError: the file is not a log, or packed in a way that this Python cannot unpack.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            header = json.loads(archive.read("header.json"))
            samples = [json.loads(archive.read(name)) for name in names if name.startswith("samples/")]
    except (NotImplementedError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be unpacked ({error}); convert it with `inspect log convert --to json "
            f"--output-dir DIR {path.name}`"
        ) from None
    return header, samples


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, DataError))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


TRIAL_READERS = {"promptfoo": promptfoo, "inspect": inspect_log}
"""By the value of the option --from of `tunepoint import`."""

"""Results of other tools' evaluations, as trials."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunepoint.errors import DataError
from tunepoint.files.text import text_of
from tunepoint.trials.trial import Trial


def promptfoo(path: Path) -> Iterator[Trial]:
    """`promptfoo eval -o results.json`: an arm for each provider and prompt, an item for each test."""
    content = _one(path)
    results = (
        content["results"]["results"] if isinstance(content.get("results"), dict) else content["results"]
    )
    for number, one in enumerate(results):
        response, provider = one.get("response") or {}, one.get("provider") or {}
        tokens = response.get("tokenUsage") or {}
        name = provider.get("label") or provider.get("id") if isinstance(provider, dict) else provider
        prompt = one.get("prompt") or {}
        label = str(prompt.get("label") or prompt.get("raw") or one.get("promptIdx", ""))[:80]
        item = str(
            one.get("testIdx", number if "vars" not in one else json.dumps(one["vars"], sort_keys=True))
        )
        output = response.get("output")
        error = one.get("error") or response.get("error")
        yield Trial(
            arm=f"{name}, {label}",
            item=item,
            score=min(1.0, max(0.0, float(one["score"]))),
            format_ok=not error,
            input_tokens=tokens.get("prompt"),
            output_tokens=tokens.get("completion"),
            seconds=None if one.get("latencyMs") is None else float(one["latencyMs"]) / 1_000,
            cost_usd=one.get("cost"),
            answer=output if isinstance(output, str) else json.dumps(output),
            error=None if not error else str(error)[:300],
        )


INSPECT_SCORES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Inspect's letters: correct, incorrect, partial, no answer."""


def inspect_log(path: Path) -> Iterator[Trial]:
    """A log of Inspect, `.json` or `.eval`: an arm for its model, an item for each sample."""
    header, samples = _packed(path) if zipfile.is_zipfile(path) else _plain(path)
    arm = f"{header['eval']['model']}, {header['eval']['task']}"
    for sample in samples:
        scores = sample.get("scores") or {}
        if not scores:
            continue
        value = next(iter(scores.values()))["value"]
        output = sample.get("output") or {}
        usages = list((sample.get("model_usage") or {}).values())
        said = ((output.get("choices") or [{}])[0].get("message") or {}).get("content")
        score = INSPECT_SCORES.get(value) if isinstance(value, str) else float(value)
        if score is None:
            raise DataError(
                f"{path}: sample {sample['id']!r} has the score {value!r}: C, I, P, N or 0 to 1 is known"
            )
        epoch = int(sample.get("epoch") or 1)
        yield Trial(
            arm=arm,
            item=str(sample["id"]),
            score=min(1.0, max(0.0, score)),
            decode=str(epoch - 1) if epoch > 1 else None,
            input_tokens=sum(int(one.get("input_tokens") or 0) for one in usages) or None,
            output_tokens=sum(int(one.get("output_tokens") or 0) for one in usages) or None,
            seconds=output.get("time"),
            answer=output.get("completion") or (said if isinstance(said, str) else None),
            error=str(sample["error"])[:300] if sample.get("error") else None,
        )


def _plain(path: Path) -> tuple[dict[str, Any], list[Any]]:
    header = _one(path)
    return header, list(header.get("samples") or [])


def _packed(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Header and samples of a packed log.

    Raises:
        DataError: it is packed in a way that this Python cannot unpack, or is none.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            header = json.loads(archive.read("header.json"))
            samples = [json.loads(archive.read(name)) for name in names if name.startswith("samples/")]
    except (NotImplementedError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be unpacked ({error}); `inspect log convert --to json --output-dir DIR "
            f"{path.name}` writes it as JSON"
        ) from None
    return header, samples


def _one(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text_of(path, DataError))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON object is expected")
    return content


TRIAL_READERS = {"promptfoo": promptfoo, "inspect": inspect_log}

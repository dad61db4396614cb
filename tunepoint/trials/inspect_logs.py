"""Logs of Inspect as trials."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunepoint.errors import DataError
from tunepoint.files.foreign_json import (
    amount,
    count,
    mapping,
    number,
    parse_json,
    read_json,
    sequence,
)
from tunepoint.files.left_out import LeftOut
from tunepoint.models.chat_completions import text_of
from tunepoint.trials.imported import (
    MAX_AMOUNT,
    MAX_ERROR_CHARACTERS,
    ImportedResults,
    ResultReader,
    share,
)
from tunepoint.trials.trial import Trial

WORDS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""Scores that are no numbers: correct, incorrect, partial, no answer, and how Inspect reads words."""
UNPACKING_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, EOFError, OSError, LookupError, ValueError, OverflowError),
)
"""What `zipfile` raises for damaged, encrypted and unknown members."""
HEADERS = ("header.json", "_journal/start.json")
"""Members of an `.eval` file with the description of the evaluation; only the second if it did not finish."""
MAX_SAMPLE_BYTES = 64 * 2**20
"""Of one unpacked sample."""
MAX_ARCHIVE_BYTES = 8 * 2**30
"""Of all unpacked samples together, which are read one at a time."""
TOO_LARGE = "convert it with `inspect log convert --to eval`, whose samples are read one at a time"
Json = Mapping[str, Any]


def inspect_log(path: Path, score: str | None = None) -> ImportedResults:
    """Read a log of Inspect, `.json` or `.eval`: an arm for its model and task, an item for each sample.

    Args:
        path: of the log.
        score: name of the scorer, and of a key of its scores where they are objects, as in `judge` or
            `judge.accuracy`. By default the first scorer.

    Raises:
        DataError: no such file, no log of Inspect, or scores on another scale than 0..1.

    """
    archive = zipfile.is_zipfile(path)
    header = _packed_header(path) if archive else mapping(read_json(path, DataError, too_large=TOO_LARGE))
    evaluation = mapping(header.get("eval"))
    if not evaluation.get("model") or not evaluation.get("task"):
        raise DataError(
            f"{path}: no log of Inspect, which has the model and the task under the key 'eval'"
            f"{_error_words(header)}; give a log that Inspect wrote"
        )
    reader, seen = _Samples(evaluation, score), 0
    for place, sample in _packed_samples(path) if archive else _plain_samples(path, header):
        reader.read_sample(place, sample)
        seen += 1
    if not seen:
        raise DataError(f"{path}: the log holds no samples{_error_words(header)}; run the evaluation again")
    results = reader.finish()
    results.notes += reader.notes()
    if header.get("status", "success") != "success":
        results.notes.append(f"{path}: the evaluation did not finish{_error_words(header)}.")
    return results


def _error_words(header: Json) -> str:
    """Return what a log says about the end of its evaluation, in brackets."""
    words = [str(header.get("status") or ""), str(mapping(header.get("error")).get("message") or "")]
    error = ": ".join(filter(None, words))
    return f" (it says {error[:MAX_ERROR_CHARACTERS]!r})" if error else ""


class _Samples(ResultReader):
    """Turns samples into trials, all by the same scorer."""

    def __init__(self, evaluation: Json, score: str | None) -> None:
        super().__init__()
        self.model = str(evaluation["model"])
        self.arm = f"{self.model}, {evaluation['task']}"
        self.scorer, _, self.key = (score or "").partition(".")
        self.others: set[str] = set()
        self._epochs: set[tuple[str, int]] = set()

    def read_sample(self, place: str, sample: Any) -> None:
        """Add the trial of a sample, or count why there is none."""
        self.read(place, lambda: self._trial(sample))

    def notes(self) -> list[str]:
        """Return a sentence about the scorers that are not used, if there are any."""
        if not self.others:
            return []
        others = ", ".join(sorted(self.others))
        return [f"Scores are those of {self.scorer}. The log also has {others}: choose with --score."]

    def _trial(self, sample: Any) -> Trial:
        if not isinstance(sample, dict):
            raise LeftOut("that are no sample (too large, or no JSON object)")
        value = self._score(sample)
        item, epoch = sample.get("id"), count(sample.get("epoch")) or 1
        if item is None:
            raise LeftOut("without an id, so nobody can tell which question they answer")
        score = _value(value)
        if (str(item), epoch) in self._epochs:
            raise LeftOut("with the id and epoch of an earlier sample")
        self._epochs.add((str(item), epoch))
        usage = self._usage(sample)
        output = mapping(sample.get("output"))
        error = sample.get("error")
        return Trial(
            arm=self.arm,
            item=str(item),
            score=score,
            decode=str(epoch - 1) if epoch > 1 else None,
            input_tokens=count(usage.get("input_tokens")),
            output_tokens=count(usage.get("output_tokens")),
            seconds=amount(output.get("time"), MAX_AMOUNT),
            answer=_answer(output),
            error=str(mapping(error).get("message") or error)[:MAX_ERROR_CHARACTERS] if error else None,
        )

    def _score(self, sample: Json) -> Any:
        """Return the value of the score that counts; the first scorer of the log becomes that of all samples.

        Raises:
            LeftOut: the sample was not scored, or not by this scorer.

        """
        scores = mapping(sample.get("scores"))
        if not scores:
            failed = sample.get("error")
            raise LeftOut("that failed before they were scored" if failed else "that were not scored")
        self.scorer = self.scorer or next(iter(scores))
        self.others |= scores.keys() - {self.scorer}
        if self.scorer not in scores:
            raise LeftOut(f"without a score of {self.scorer} (there are: {', '.join(scores)})")
        value = mapping(scores[self.scorer]).get("value")
        if not isinstance(value, dict):
            return value
        if self.key not in value:
            keys = ", ".join(f"{self.scorer}.{key}" for key in value)
            raise LeftOut(f"with several scores in one: choose with --score (there are: {keys})")
        return value[self.key]

    def _usage(self, sample: Json) -> Json:
        """Return the tokens of the model, without those of a model that graded its answers."""
        usages = mapping(sample.get("model_usage"))
        own = usages.get(self.model) or (next(iter(usages.values())) if len(usages) == 1 else None)
        return mapping(own) or mapping(mapping(sample.get("output")).get("usage"))


def _value(value: Any) -> float:
    """Return the number for the value of a score.

    Raises:
        LeftOut: it is a list, no number, or outside 0..1.

    """
    if isinstance(value, list):
        raise LeftOut("with a list as their score")
    if isinstance(value, str) and number(value) is None:
        word = value if value in WORDS else value.lower()
        if word not in WORDS or (len(word) == 1 and value != word):
            raise LeftOut(f"with the score {value[:20]!r}; expected C, I, P, N or a number from 0 to 1")
        return WORDS[word]
    return share(value)


def _answer(output: Json) -> str | None:
    """Return the text of an answer, which may be in parts."""
    if output.get("completion"):
        return str(output["completion"])
    choices = sequence(output.get("choices"))
    message = mapping(mapping(choices[0]).get("message")) if choices else {}
    return text_of(message.get("content")) or None


# -- files -------------------------------------------------------------------------------------------


def _plain_samples(path: Path, header: Json) -> Iterator[tuple[str, Any]]:
    for position, sample in enumerate(sequence(header.get("samples")), start=1):
        yield f"{path}, sample {position}", sample


def _packed_header(path: Path) -> Json:
    """Return the description of the evaluation, and whether it finished, from an `.eval` file.

    Raises:
        DataError: there is none.

    """
    headers = dict(_members(path, lambda name: name in HEADERS))
    finished, begun = (mapping(headers.get(f"{path}, {name}")) for name in HEADERS)
    if not finished and not begun:
        raise DataError(f"{path}: an archive without {HEADERS[0]}; {_convert(path)}")
    return finished or {**begun, "status": "started"}


def _packed_samples(path: Path) -> Iterator[tuple[str, Any]]:
    return _members(path, lambda name: name.startswith("samples/") and name.endswith(".json"))


def _members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """Yield the JSON members of an archive with their places; None for one that is too large.

    Raises:
        DataError: the archive is damaged, too large, or packed in a way that this Python cannot unpack.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if wanted(member.filename)]
            _check_total(path, members)
            for member in members:
                place = f"{path}, {member.filename}"
                content = _unpacked(archive, member)
                yield place, None if content is None else parse_json(content, place, DataError)
    except UNPACKING_ERRORS as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); {_convert(path)}") from None


def _check_total(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    total = sum(member.file_size for member in members)
    if total > MAX_ARCHIVE_BYTES:
        raise DataError(
            f"{path}: unpacks to {total / 2**30:.1f} GiB, and {MAX_ARCHIVE_BYTES / 2**30:.0f} GiB are "
            "allowed; split the evaluation"
        )


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    """Return the content of a member, or None if it is too large."""
    if member.file_size > MAX_SAMPLE_BYTES:
        return None
    # With a number of bytes, for the size in the directory may be false.
    with archive.open(member) as file:
        return file.read(MAX_SAMPLE_BYTES + 1)


def _convert(path: Path) -> str:
    return f"convert it with `inspect log convert --to json --output-dir DIR {path.name}`"

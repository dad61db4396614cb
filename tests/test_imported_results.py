"""Results of other evaluation tools as they are found, and archives that are not what they say."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_imports import SAMPLE, written
from typer.testing import CliRunner

from tunepoint import tabulate
from tunepoint.capture.log_import import ImportReport, import_log, import_logs
from tunepoint.cli.app import app
from tunepoint.errors import DataError
from tunepoint.stats.comparisons import compare
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.manifest import MANIFEST
from tunepoint.trials import inspect_logs
from tunepoint.trials.table import joint_of

# -- promptfoo ---------------------------------------------------------------------------------------


def result(test: int = 0, words: str = "x", score: Any = 1, **more: Any) -> dict[str, Any]:
    return {
        "provider": {"id": "openai:gpt-5-mini"},
        "prompt": {"label": "Route {{m}}"},
        "promptIdx": 0,
        "testIdx": test,
        "vars": {"m": words},
        "score": score,
        "response": {"output": "billing", "tokenUsage": {"prompt": 20, "completion": 2}},
        "latencyMs": 420,
        "cost": 0.0001,
        **more,
    }


def results_of(folder: Path, *results: Any) -> ImportReport:
    (folder / "r.json").write_text(json.dumps({"results": {"version": 3, "results": results}}))
    return import_log(folder / "r.json", "promptfoo", "")


def test_repetitions_are_answers_to_the_same_item(tmp_path: Path) -> None:
    """Repeating all answers must not make a difference surer, as more items would."""
    p_values, items = [], []
    for repeat in (1, 3):
        rows = [
            result(test * repeat + run, f"message {test}", int(test % wrong > 0), provider=provider)
            for test in range(30)
            for run in range(repeat)
            for provider, wrong in (("a", 3), ("b", 10))
        ]
        table = tabulate(results_of(tmp_path, *rows).trials)
        items.append(len(table.items))
        p_values.append(compare(joint_of(table), [(0, 1)], stream(0, Stream.DECISION))[0].p_value)
    assert items == [30, 30]
    assert p_values[1] == pytest.approx(p_values[0], rel=0.2)


def test_repetitions_keep_the_order_of_their_runs(tmp_path: Path) -> None:
    rows = [
        result(2, score=0.2),
        result(0, score=0.0),
        result(1, score=0.1, vars={"m": "x", "sessionId": "s"}),
    ]
    trials = results_of(tmp_path, *rows).trials
    assert [(trial.decode, trial.score) for trial in trials] == [(None, 0.0), ("1", 0.1), ("2", 0.2)]


def test_prompts_and_columns_stay_apart(tmp_path: Path) -> None:
    long = "You are a careful assistant of a shop. Read the message and say which queue it needs. "
    rows = [result(prompt={"label": f"{long}Variant {i}"}, promptIdx=i) for i in range(2)]
    rows += [result(promptIdx=i) for i in (2, 3)]  # the same provider twice, with other settings
    arms = [trial.arm for trial in results_of(tmp_path, *rows).trials]
    assert len(set(arms)) == 4 and all(len(arm) < 110 for arm in arms)


@pytest.mark.parametrize("form", ["list", "lines", "old"])
def test_forms_of_promptfoos_files(tmp_path: Path, form: str) -> None:
    rows = [result(0, "x"), result(1, "y")]
    texts = {
        "list": json.dumps(rows, indent=1),
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
        "old": json.dumps({"results": rows}),
    }
    (tmp_path / "r.json").write_text(texts[form])
    assert len(import_log(tmp_path / "r.json", "promptfoo", "").trials) == 2


def test_results_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    without = result(7)
    del without["score"]
    report = results_of(
        tmp_path, result(), result(1, "y", None), without, result(2, "z", "?"), result(3, provider=None), 5
    )
    assert len(report.trials) == 1
    assert report.skipped == {
        "without a score": 3,
        "without a provider": 1,
        "that are no results of `promptfoo eval -o results.json`": 1,
    }


def test_scores_on_another_scale_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the score is 7, and 2 of 3 scores lie outside 0 to 1"):
        results_of(tmp_path, result(0, "x", 7), result(1, "y", -0.5), result(2, "z", 1))
    stray = [result(i, f"m{i}", 1.0000001) for i in range(20)]
    report = results_of(tmp_path, *stray, result(20, "z", 7))
    assert [trial.score for trial in report.trials] == [1.0] * 20
    assert report.skipped == {"with a score outside 0 to 1": 1}


def test_cached_answers_have_no_cost_and_no_latency(tmp_path: Path) -> None:
    cached = {"output": "billing", "cached": True, "tokenUsage": {"cached": 12, "total": 12}}
    report = results_of(tmp_path, result(response=cached, cost=0))
    (trial,) = report.trials
    assert (trial.cost_usd, trial.seconds, trial.input_tokens) == (None, None, None)
    assert "cache" in str(report)


def test_a_wrong_answer_is_no_error(tmp_path: Path) -> None:
    """promptfoo also writes the reason of a failed assertion under `error`."""
    wrong = result(0, "x", 0, error="Expected output to equal 'other'", failureReason=1)
    failed = result(1, "y", 0, error="API error: 500", response=None, failureReason=2)
    first, second = results_of(tmp_path, wrong, failed).trials
    assert (first.format_ok, first.error) == (True, None)
    assert (second.format_ok, second.error) == (False, "API error: 500")


def test_an_arm_that_never_answered_is_not_measured(tmp_path: Path) -> None:
    refused = [result(i, f"m{i}", 0, provider="b", response={"error": "401"}) for i in range(3)]
    report = results_of(tmp_path, result(), *refused)
    assert [trial.arm for trial in report.trials] == ["openai:gpt-5-mini, Route {{m}}"]
    assert report.skipped == {"of b, Route {{m}}, which gave no answer at all": 3}


def test_odd_values_of_promptfoo(tmp_path: Path) -> None:
    odd = {"output": {"queue": "billing"}, "tokenUsage": {"prompt": 10.4, "completion": -1}}
    (trial,) = results_of(tmp_path, result(response=odd, latencyMs="x", cost=-1)).trials
    assert (trial.answer, trial.input_tokens, trial.output_tokens) == ('{"queue": "billing"}', 10, None)
    assert (trial.seconds, trial.cost_usd) == (None, None)
    assert results_of(tmp_path, result(response="billing")).trials[0].answer == "billing"
    named = result(score=0, namedScores={"tone": 0.5})
    (tmp_path / "n.json").write_text(json.dumps([named]))
    assert import_logs([tmp_path / "n.json"], "promptfoo", "", "tone").trials[0].score == 0.5


# -- Inspect -----------------------------------------------------------------------------------------

HEADER = {"version": 2, "status": "success", "eval": {"task": "sums", "model": "mockllm/model"}}


def inspect_of(folder: Path, *samples: Any, score: str | None = None, **header: Any) -> ImportReport:
    (folder / "log.json").write_text(json.dumps({**HEADER, **header, "samples": samples}))
    return import_logs([folder / "log.json"], "inspect", "", score)


def sample(number: int = 1, value: Any = "C", **more: Any) -> dict[str, Any]:
    return {**SAMPLE, "id": number, "epoch": 1, "scores": {"match": {"value": value}}, **more}


@pytest.mark.parametrize(
    ("value", "score"),
    [("C", 1), ("I", 0), ("P", 0.5), ("N", 0), (True, 1), ("yes", 1), ("False", 0), ("0.25", 0.25)],
)
def test_values_that_inspect_reads_as_scores(tmp_path: Path, value: Any, score: float) -> None:
    assert inspect_of(tmp_path, sample(1, value)).trials[0].score == score


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scores": {"match": {"value": float("nan")}}}, "without a score"),
        ({"scores": {"match": {"value": None}}}, "without a score"),
        ({"scores": {"match": None}}, "without a score"),
        ({"scores": {"match": {"value": ["C"]}}}, "with a list as their score"),
        (
            {"scores": {"match": {"value": "maybe"}}},
            "with the score 'maybe'; expected C, I, P, N or a number",
        ),
        ({"scores": {"match": {"value": {"f1": 0.5}}}}, "with several scores in one: choose with --score"),
        ({"scores": {"other": {"value": "C"}}}, "without a score of match"),
        ({"scores": None, "error": {"message": "timeout"}}, "that failed before they were scored"),
        ({"scores": {}}, "that were not scored"),
        ({"id": None}, "without an id"),
        ({"id": "1"}, "with the id and epoch of an earlier sample"),
    ],
)
def test_samples_that_cannot_be_used_are_left_out(tmp_path: Path, change: Any, reason: str) -> None:
    report = inspect_of(tmp_path, sample(1), sample(2, **change))
    assert len(report.trials) == 1
    ((told, number),) = report.skipped.items()
    assert told.startswith(reason) and number == 1


def test_all_samples_are_scored_by_the_same_scorer(tmp_path: Path) -> None:
    both = {"match": {"value": "I"}, "judge": {"value": {"accuracy": 1.0, "f1": 0.5}}}
    report = inspect_of(tmp_path, sample(1, scores=both), sample(2, scores=dict(reversed(both.items()))))
    assert [trial.score for trial in report.trials] == [0, 0]
    assert "Scores are those of match. The log also has judge: choose with --score." in str(report)
    report = inspect_of(tmp_path, sample(1, scores=both), score="judge.f1")
    assert [trial.score for trial in report.trials] == [0.5]


def test_the_graders_tokens_are_not_the_models(tmp_path: Path) -> None:
    usage = {"grader": {"input_tokens": 900}, "mockllm/model": {"input_tokens": 9, "output_tokens": 1}}
    assert inspect_of(tmp_path, sample(model_usage=usage)).trials[0].input_tokens == 9


def test_an_answer_in_parts(tmp_path: Path) -> None:
    parts = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "billing"}]
    output = {"choices": [{"message": {"content": parts}}]}
    assert inspect_of(tmp_path, sample(output=output)).trials[0].answer == "billing"


def test_a_log_of_a_failed_evaluation_says_so(tmp_path: Path) -> None:
    report = inspect_of(tmp_path, sample(), status="error", error={"message": "disk full"})
    assert "the evaluation did not finish (it says 'error: disk full')" in str(report)
    with pytest.raises(DataError, match="holds no samples"):
        inspect_of(tmp_path)
    (tmp_path / "x.json").write_text('{"status": "error", "error": {"message": "x"}}')
    with pytest.raises(DataError, match="no log of Inspect"):
        import_log(tmp_path / "x.json", "inspect", "")


def packed(path: Path, **members: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            archive.writestr(name, value if isinstance(value, str) else json.dumps(value))
    return path


def test_an_unfinished_archive_is_read_by_its_journal(tmp_path: Path) -> None:
    start = {"version": 2, "eval": HEADER["eval"]}
    log = packed(tmp_path / "a.eval", **{"_journal/start.json": start, "samples/1.json": sample()})
    report = import_log(log, "inspect", "")
    assert len(report.trials) == 1 and "did not finish (it says 'started')" in str(report)


def test_sizes_are_checked_before_archives_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = json.dumps(sample(2, pad="0" * 100_000))
    log = packed(
        tmp_path / "a.eval", **{"header.json": HEADER, "samples/1.json": sample(), "samples/2.json": bomb}
    )
    monkeypatch.setattr(inspect_logs, "MAX_SAMPLE_BYTES", 10_000)
    report = import_log(log, "inspect", "")
    assert len(report.trials) == 1
    assert report.skipped == {"that are no sample (too large, or no JSON object)": 1}
    monkeypatch.setattr(inspect_logs, "MAX_ARCHIVE_BYTES", 20_000)
    with pytest.raises(DataError, match=r"unpacks to .* GiB"):
        import_log(log, "inspect", "")


def test_a_member_that_lies_about_its_size_is_not_unpacked(tmp_path: Path) -> None:
    log = packed(tmp_path / "a.eval", **{"header.json": HEADER, "samples/1.json": "0" * 1_000_000})
    content = log.read_bytes()
    assert content.count((1_000_000).to_bytes(4, "little")) == 2
    log.write_bytes(content.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="cannot be unpacked"):
        import_log(log, "inspect", "")


# -- several files -----------------------------------------------------------------------------------


def imported(folder: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["import", *words, "--from", "inspect", "--out", str(folder / "t.jsonl")])
    return done.exit_code, " ".join(done.output.split())


def test_logs_of_several_models_go_into_one_file(tmp_path: Path) -> None:
    logs = []
    for model in ("a", "b"):
        log = {**HEADER, "eval": {"task": "sums", "model": model}, "samples": [sample(1), sample(2)]}
        logs.append(str(written(tmp_path / f"{model}.json", log)))
    code, words = imported(tmp_path, logs[0])
    assert code == 0 and "at least two options" in words
    code, words = imported(tmp_path, logs[1])
    assert code == 0 and "`tunepoint decide --task task.toml --trials" in words
    code, words = imported(tmp_path, *logs)
    assert code == 0 and "4 were there already" in words
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 4
    other = {**HEADER, "eval": {"task": "sums", "model": "a"}, "samples": [sample(1, "I")]}
    code, words = imported(tmp_path, str(written(tmp_path / "c.json", other)))
    assert code == 2 and "another result of 'a, sums' on item '1' is there already" in words


def test_imports_never_touch_a_study(tmp_path: Path) -> None:
    log = written(tmp_path / "a.json", {**HEADER, "samples": [sample()]})
    (tmp_path / MANIFEST).write_text("{}")
    code, words = imported(tmp_path, str(log))
    assert code == 2 and "belongs to a study" in words
    assert not (tmp_path / "t.jsonl").exists()

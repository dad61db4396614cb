from __future__ import annotations

from pathlib import Path

import pytest

from tunepoint import Example, Task
from tunepoint.errors import TaskError
from tunepoint.stats.ranges import Range
from tunepoint.trials.scorers import exact, scorer, scorer_code


def test_the_designs_own_example_is_read(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(
        """
name = "support-triage"
instruction = "Route it."
[data]
path = "messages.csv"
input = ["subject", "text"]
target = "queue"
group = "customer_id"
[answer]
kind = "label"
[answer.labels]
billing = "Charges"
[score]
metric = "exact"
[traffic]
queries_per_month = [20_000, 40_000, 90_000]
horizon_months = 12
[limits]
margin = 0.02
min_score = 0.85
p95_seconds = 1.5
upfront_usd = 2_000
monthly_usd = 500
[value]
error_usd = 0.40
materiality = 0.05
[costs]
label_minutes = [0.3, 0.5, 1.0]
hourly_usd = 60
engineering_hours = [4, 8, 24]
core_hour_usd = 0.04
retrain_months = 6
[[models]]
name = "embedded:minilm"
"""
    )
    task = Task.load(tmp_path)
    assert task.traffic.queries_per_month == Range(20_000, 40_000, 90_000)
    assert task.costs.hourly_usd == Range(60, 60, 60)
    assert task.data is not None and task.data.columns.input == ("subject", "text")
    assert task.resolve(Path("messages.csv")) == tmp_path / "messages.csv"
    assert task.resolve(Path("/x")) == Path("/x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "x", "limts": {}}, "unknown key 'limts'; did you mean 'limits'"),
        ({"name": "x", "limits": {"margn": 1}}, "unknown key 'limits.margn'; did you mean 'margin'"),
        ({"name": "x", "models": [{"name": "a", "nme": 1}]}, "did you mean 'name'"),
        ({"name": "x", "limits": {"zzz": 1}}, "known: 'margin'"),
        ({"name": "x", "folder": "/"}, "unknown key 'folder'"),
        ({}, "the key 'name' is missing"),
        ({"name": "a b"}, "name: string should match pattern"),
        ({"name": "x", "limits": {"margin": 1.5}}, r"limits.margin: .*less than 1 \(it is 1.5\)"),
        ({"name": "x", "traffic": {"queries_per_month": [3, 2, 1]}}, "rising order"),
        ({"name": "x", "costs": {"hourly_usd": -3}}, "must not be negative, got -3"),
        ({"name": "x", "costs": {"hourly_usd": "60"}}, "expected a number or"),
        ({"name": "x", "data": {"path": "a", "train": "b"}}, "either path or train"),
        ({"name": "x", "data": {"input": "a"}}, "give path, or both train and test"),
        ({"name": "x", "data": {"path": "a", "split": [0.5, 0.5, 0.5]}}, "add up to 1"),
        ({"name": "x", "answer": {"kind": "poem"}}, "answer.kind"),
    ],
)
def test_mistakes_are_named_with_the_key(content: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.parse(content)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="tunepoint init"):
        Task.load(tmp_path / "task.toml")
    (tmp_path / "task.toml").write_text("name = ")
    with pytest.raises(TaskError, match="not valid TOML"):
        Task.load(tmp_path / "task.toml")


def test_only_what_is_measured_changes_the_identity() -> None:
    base = {"name": "x", "data": {"path": "a.csv"}, "instruction": "do"}
    same = Task.parse({**base, "limits": {"margin": 0.1}, "traffic": {"queries_per_month": 5}})
    assert Task.parse(base).trials_fingerprint() == same.trials_fingerprint()
    other = Task.parse({**base, "instruction": "do it"})
    assert Task.parse(base).trials_fingerprint() != other.trials_fingerprint()


def shouted(answer: str, example: Example) -> float:
    return float(answer.isupper())


def test_scorers() -> None:
    example = Example("1", "in", "Billing")
    assert exact(" billing ", example) == 1.0
    assert exact("other", example) == 0.0
    assert scorer("exact") is exact
    assert scorer("test_task:shouted")("YES", example) == 1.0
    with pytest.raises(TaskError, match="did you mean 'exact'"):
        scorer("exat")
    with pytest.raises(TaskError, match="cannot be imported"):
        scorer("test_task:nothing")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"limits": {"p95_seconds": float("inf")}}, "limits.p95_seconds: input should be a finite number"),
        (
            {"value": {"error_usd": 1e300}},
            "value.error_usd: input should be less than or equal to 1000000000000",
        ),
        ({"traffic": {"queries_per_month": 1e300}}, "a range must stay within 1e"),
        ({"limits": 3}, "limits: expected a .section. with keys"),
        ({"answer": {"labels": {}}}, "labels is empty"),
        ({"data": {"path": "a.csv", "split": [float("nan"), 0.5, 0.5]}}, "three positive shares"),
    ],
)
def test_numbers_stay_within_reason(section: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.parse({"name": "t", **section})


def test_a_user_s_scorer_is_found_beside_the_task_and_checked(tmp_path: Path) -> None:
    code = (
        "def half(answer, example):\n    return 0.5\n\ndef two(answer, example):\n    return 2\n\nten = 10\n"
    )
    (tmp_path / "my_scorer.py").write_text(code + "\ndef torn(answer, example):\n    raise KeyError('x')\n")
    example = Example("e1", "input", "target")
    assert scorer("my_scorer:half", tmp_path)("a", example) == 0.5
    for name, message in (("two", "returned 2 on e1"), ("torn", "raised KeyError: 'x' on e1")):
        with pytest.raises(TaskError, match=message):
            scorer(f"my_scorer:{name}", tmp_path)("a", example)
    with pytest.raises(TaskError, match="is 10; expected a function of answer and example"):
        scorer("my_scorer:ten", tmp_path)
    first_code = scorer_code("my_scorer:half", tmp_path)
    (tmp_path / "my_scorer.py").write_text(code)
    assert first_code is not None and scorer_code("my_scorer:half", tmp_path) != first_code
    assert scorer_code("exact") is None and scorer_code("nowhere:f") is None


@pytest.mark.parametrize(
    ("metric", "answer", "target", "score"),
    [
        ("f1", "a, B", "b; a", 1.0),
        ("f1", '["a"]', "a,b", pytest.approx(2 / 3)),
        ("f1", "", "", 1.0),
        ("f1", "a", "b", 0.0),
        ("numeric", "1,000.0", "1000", 1.0),
        ("numeric", "1001", "1000", 0.0),
        ("numeric", "many", "1000", 0.0),
        # two of three wanted fields, two given: 2 x 2 / (2 + 3)
        ("json_fields", '{"a": 1, "b": "X "}', '{"a": 1, "b": "x", "c": [2]}', 0.8),
        ("json_fields", '{"a": {"b": 1}}', '{"a": {"b": 1}, "c": null}', 1.0),
        ("json_fields", "broken", '{"a": 1}', 0.0),
        ("json_fields", "{}", "{}", 1.0),
        ("json_whole", '{"a": 1}', '{"a": "1"}', 1.0),
        ("json_whole", '{"a": 1, "b": 2}', '{"a": 1}', 0.0),
        ("similarity", "Hello  World", "hello world", 1.0),
        ("similarity", "abc", "xyz", 0.0),
    ],
)
def test_scorers_by_hand(metric: str, answer: str, target: str, score: float) -> None:
    assert scorer(metric)(answer, Example("1", "in", target)) == score


def test_numbers_may_be_off_by_the_tolerance() -> None:
    near = scorer("numeric", tolerance=0.01)
    assert near("1001", Example("1", "in", "1000")) == 1.0
    assert near("1100", Example("1", "in", "1000")) == 0.0

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tunepoint import Example, Trial, read_trials, tabulate
from tunepoint.errors import StudyError, TrialsError
from tunepoint.files.text import write_json
from tunepoint.models.chat import Reply, Usage
from tunepoint.stats.comparisons import score_intervals
from tunepoint.stats.paired import joint_scores
from tunepoint.trials.grading import Grading, grade_replies, score_replies
from tunepoint.trials.tabulation import mean_interval
from tunepoint.trials.trial import TrialLog


def trial(arm: str, item: str, score: float = 1.0, **settings: object) -> Trial:
    return Trial.model_validate({"arm": arm, "item": item, "score": score, **settings})


def write(folder: Path, *lines: str) -> Path:
    path = folder / "trials.jsonl"
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_trial_survives_the_round_trip(tmp_path: Path) -> None:
    written = trial("a", "1", 0.5, cluster="c", seed="0", seconds=0.1, answer="x", confidence=0.5)
    path = tmp_path / "t.jsonl"
    path.write_text(written.line())
    assert read_trials(path) == [written]
    assert "error" not in written.line()


def test_foreign_lines_may_have_numbers_for_names_and_other_keys(tmp_path: Path) -> None:
    path = write(tmp_path, '{"arm": "a", "item": 7, "score": 1, "seed": 3, "mine": true}', "")
    assert read_trials(path)[0].key == ("a", "7", "3", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"arm": "a", "item": "1"}', "trials.jsonl:2: score: field required"),
        ('{"arm": "a", "item": "1", "score": 1.5}', r"score: .*less than or equal to 1 \(it is 1.5\)"),
        ('{"arm": "a", "item": "1", "sco', "trials.jsonl:2: not one JSON object"),
        ('{"arm": "a", "item": "0", "score": 1}', "item '0' already on line 1"),
        ('{"arm": "a", "item": "1", "score": 1, "cost_usd": -1}', "cost_usd"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(TrialsError, match=message):
        read_trials(write(tmp_path, '{"arm": "a", "item": "0", "score": 1}', line))


def test_no_file_and_no_trials_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TrialsError, match="no such file"):
        read_trials(tmp_path / "none.jsonl")
    with pytest.raises(TrialsError, match="holds no trials"):
        read_trials(write(tmp_path, ""))


def test_a_half_written_last_line_is_cut_off_and_said(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    log = TrialLog(path)
    log.append([trial("a", "1"), trial("a", "2")])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"arm": "a", "ite')
    reopened = TrialLog(path)
    assert reopened.repaired == 17
    assert path.read_bytes() == whole
    assert len(reopened.trials) == 2
    reopened.append([trial("a", "3")])
    assert {t.item for t in TrialLog(path).of("a")} == {"1", "2", "3"}


def test_a_whole_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text('{"arm": "a", "item": "1", "score": 1}')
    log = TrialLog(path)
    assert log.repaired == 0 and log.done == {("a", "1", None, None)}
    log.append([trial("a", "2")])
    assert len(TrialLog(path).trials) == 2


def test_foreign_trials_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"arm": "a", "item": "1", "score": 1}\n')
    assert len(read_trials(path)) == 1
    with pytest.raises(TrialsError, match="folder"):
        read_trials(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_a_clear_error() -> None:
    log = TrialLog.__new__(TrialLog)
    log.path, log.trials, log.done = Path("/dev/full"), [trial("a", "1")], set()
    with pytest.raises(StudyError, match=r"No space left.*1 trials before are safe"):
        log.append([trial("a", "2")])
    assert len(log.trials) == 1


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be written"):
        write_json(tmp_path / "nowhere" / "a.json", {})
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_tabulate_takes_the_common_items_and_counts_the_rest() -> None:
    trials = [trial("a", str(i), i % 2, cluster=str(i // 2)) for i in range(6)]
    trials += [trial("b", str(i), 1, seed=str(s)) for i in range(5) for s in (0, 1)]
    trials.append(trial("b", "5", 1, seed="0"))
    table = tabulate(trials)
    assert table.items == ("0", "1", "2", "3", "4")
    assert table.left_out == 1
    assert table.arms[0].scores.tolist() == [[0, 1, 0, 1, 0]]
    assert table.arms[1].scores.shape == (2, 5)
    assert table.clusters is not None and table.clusters.tolist() == [0, 0, 1, 1, 2]
    half = table.subset(np.array([True, False, True, False, True]))
    assert half.items == ("0", "2", "4")
    assert half.clusters is not None and len(half.clusters) == 3


def test_an_unreadable_reply_scores_0_and_the_scorer_does_not_see_it() -> None:
    seen: list[str] = []

    def scoring(answers: Sequence[str], examples: Sequence[Example]) -> list[Grading]:
        seen.extend(answers)
        return [Grading(None if answer == "ungraded" else 0.75) for answer in answers]

    replies = [
        Reply("x", "x", Usage("m")),
        Reply("?", None, Usage("m"), format_ok=False, error="it is none of the labels"),
        Reply("ungraded", "ungraded", Usage("m")),
    ]
    examples = [Example(str(i), "in", "x") for i in range(3)]
    assert score_replies(scoring, replies, examples).tolist() == [0.75, 0, 0]
    assert grade_replies(scoring, replies, examples)[2].score is None  # no grade is no zero in a study
    assert seen == ["x", "ungraded"] * 2


def test_the_interval_of_one_arm_is_the_same_every_time() -> None:
    trials = [trial("a", str(i), i % 3 / 2) for i in range(60)]
    interval = mean_interval(trials)
    assert interval.estimate == pytest.approx(0.5) and interval == mean_interval(trials)
    joint = joint_scores([np.array([[each.score for each in trials]])])
    assert interval == score_intervals(joint, np.random.default_rng(0), draws=4_000)[0]


def test_tabulate_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(TrialsError, match=r"share none of 2 items.*'a' 1, 'b' 1"):
        tabulate([trial("a", "1"), trial("b", "2")])
    with pytest.raises(TrialsError, match="no trials of 'c'"):
        tabulate([trial("a", "1")], ["a", "c"])
    with pytest.raises(TrialsError, match="no trials of any arm"):
        tabulate([])
    with pytest.raises(TrialsError, match="item '1' is in cluster 'x' and in 'y'"):
        tabulate([trial("a", "1", cluster="x"), trial("b", "1", cluster="y")])

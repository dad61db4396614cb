"""`tunepoint label`: a pool without right answers, blind sheets, and a verdict that sharpens with them."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import EXAMPLE, QUEUES
from servers import Fake, serving
from test_chat_study import asked
from test_teaching import mostly_right
from test_tuned_study import routing
from typer.testing import CliRunner

from tunepoint import Example, Result, Task, decide, run
from tunepoint.capture.opening import open_store
from tunepoint.capture.records import CapturedRequest
from tunepoint.cli.app import app
from tunepoint.costs.arm_cost import ArmCost
from tunepoint.data.prepare import prepare
from tunepoint.decision.labels_needed import labels_needed
from tunepoint.decision.verdict import evidence_of
from tunepoint.errors import BudgetReached, DataError, StudyError, TaskError
from tunepoint.loop.deployment import LocalDeployment
from tunepoint.loop.gateway_client import Routes
from tunepoint.loop.labels import labels_drift
from tunepoint.loop.state import Challenger, Goals
from tunepoint.loop.traffic import pool_inputs
from tunepoint.stats.disagreements import AGREED
from tunepoint.stats.ranges import Range
from tunepoint.study.finalists import study_task
from tunepoint.study.labelling.answering import PoolQuote
from tunepoint.study.labelling.counting import why_not
from tunepoint.study.labelling.inputs import PoolInputs, extended, read_pool, write_pool
from tunepoint.study.labelling.label import Labelling, label
from tunepoint.study.labelling.labels import PoolLabel, agreement, read_labels, reliability, write_labels
from tunepoint.study.labelling.order import label_order, next_inputs
from tunepoint.study.labelling.pool import Pool, open_pool
from tunepoint.study.labelling.reading import _right, shown, take_labels
from tunepoint.study.labelling.sampling import Brought, PoolInput
from tunepoint.study.labelling.sheet import SHEET, Filled
from tunepoint.study.manifest import read_manifest
from tunepoint.study.records import LabelOrder
from tunepoint.study.whatif import Scenario, reopen, what_if
from tunepoint.trials.table import Table, joint_of
from tunepoint.trials.tabulation import tabulate
from tunepoint.trials.trial import ArmKind, Trial

Rows = list[dict[str, str]]
SHEET_INPUTS = 12


def example_rows() -> Rows:
    with (EXAMPLE / "messages.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["queue"] in QUEUES and row["text"]]


@pytest.fixture(scope="module")
def truth() -> dict[str, str]:
    return {row["text"]: row["queue"] for row in example_rows()}


@pytest.fixture(scope="module")
def answered(finished: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose finalists have answered a pool; tests label copies of it."""
    assert finished.folder is not None
    folder = tmp_path_factory.mktemp("labelling")
    shutil.copytree(finished.folder, folder / "study")
    with (folder / "pool.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "customer_id"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(example_rows())
        writer.writerow({"text": "", "customer_id": ""})
    label(folder / "study", pool=folder / "pool.csv", batch=SHEET_INPUTS)
    return folder / "study"


@pytest.fixture
def study(answered: Path, tmp_path: Path) -> Path:
    shutil.copytree(answered, tmp_path / "study")
    return tmp_path / "study"


def sheet_rows(study: Path) -> Rows:
    with (study / SHEET).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill(study: Path, right: Callable[[dict[str, str]], str], by: str = "") -> None:
    rows = sheet_rows(study)
    with (study / SHEET).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "right": right(row), "by": by} for row in rows)


def by_number(truth: dict[str, str]) -> Callable[[dict[str, str]], str]:
    """Fill in the column with the right answer, or `none`."""

    def right(row: dict[str, str]) -> str:
        columns = [name for name in row if name.startswith("#") and row[name] == truth[row["input"]]]
        return columns[0] if columns else "none"

    return right


def opened(study: Path) -> Pool:
    pool = open_pool(study, reopen(study).table.names)
    assert pool is not None
    return pool


def test_a_pool_is_answered_without_its_right_answers_and_known_inputs_are_left_out(answered: Path) -> None:
    pool, manifest = opened(answered), read_manifest(answered)
    known = {example.input for example in prepare(study_task(answered), manifest.seed).examples}
    assert pool.inputs and not {example.input for example in pool.inputs} & known
    assert not any(example.target for example in pool.inputs)
    assert (pool.strata == AGREED).sum() == len(pool.inputs) - len(pool.disputed)


def test_the_sheet_is_blind_and_holds_only_inputs_on_which_options_disagree(answered: Path) -> None:
    rows, pool = sheet_rows(answered), opened(answered)
    assert set(rows[0]) - {"item", "input", "right", "by"} <= {"#1", "#2", "#3"}
    assert {row[name] for row in rows for name in row if name[0] == "#"} <= {*QUEUES, ""}
    disputed = {pool.inputs[i].id for i in pool.disputed}
    assert {row["item"] for row in rows} <= disputed
    firsts = [row["#1"] < row["#2"] for row in rows if row["#1"] and row["#2"]]
    assert 0 < sum(firsts) < len(firsts)  # the order of the answers is drawn


def test_labels_sharpen_the_verdict_and_whatif_decides_on_them_too(
    study: Path, truth: dict[str, str]
) -> None:
    before = json.loads((study / "decision.json").read_text())
    fill(study, by_number(truth))
    state = label(study)
    assert state.new_labels == len(state.pool.labelled) > 8 and len(read_labels(study)) == state.new_labels
    after = json.loads((study / "decision.json").read_text())
    widths = [
        [difference["high"] - difference["low"] for difference in content["differences"]]
        for content in (before, after)
    ]
    assert np.mean(widths[1]) < np.mean(widths[0])
    assert any("labels outside the test set count too" in caveat for caveat in after["caveats"])
    again = what_if(study, Scenario()).before
    assert again.winner == after["winner"]
    for finalist, recorded in zip(again.finalists, after["finalists"], strict=True):
        assert finalist.score.estimate == pytest.approx(recorded["score"]["estimate"], abs=1e-6)


def test_labels_come_by_number_by_answer_or_as_none_and_a_sheet_may_be_half_filled(
    study: Path, truth: dict[str, str]
) -> None:
    rows = sheet_rows(study)
    wanted = {rows[0]["item"]: "none", rows[1]["item"]: rows[1]["#2"], rows[2]["item"]: "#1"}
    fill(study, lambda row: wanted.get(row["item"], ""))
    state = label(study)
    rights = {each.item: each.right for each in read_labels(study)}
    assert rights == {rows[0]["item"]: None, rows[1]["item"]: rows[1]["#2"], rows[2]["item"]: rows[2]["#1"]}
    assert state.new_labels == 3
    # what was left empty comes again
    assert {row["item"] for row in rows[3:]} <= {row["item"] for row in sheet_rows(study)}
    caveats = json.loads((study / "decision.json").read_text())["caveats"]
    assert any("3 labels of inputs on which the options disagree do not count yet" in c for c in caveats)


@pytest.mark.parametrize(
    ("right", "message"),
    [
        ("#9", r"to_label.csv:2: right is '#9', and 2 answers are shown: write #1 to #2, the right answer"),
        ("billling", r"to_label.csv:2: 'billling' is no label of the task; did you mean 'billing'"),
        ("#²", r"to_label.csv:2: '#²' is no label of the task"),
    ],
)
def test_mistakes_on_a_sheet_are_named_and_nothing_is_lost(study: Path, right: str, message: str) -> None:
    rows = sheet_rows(study)
    two = next(row for row in rows if not row.get("#3"))
    rows.remove(two)
    (study / SHEET).unlink()
    with (study / SHEET).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(two))
        writer.writeheader()
        writer.writerows([{**two, "right": right}, *rows])
    with pytest.raises(DataError, match=message):
        label(study)
    assert sheet_rows(study)[0]["right"] == right and not read_labels(study)


def test_second_opinions_go_to_somebody_else_and_keep_the_first(study: Path, truth: dict[str, str]) -> None:
    fill(study, by_number(truth), by="Ann")
    first = {row["item"] for row in sheet_rows(study)}
    label(study, batch=3, by="ann ", second=1.0)
    assert not first & {row["item"] for row in sheet_rows(study)}  # no second opinion of her own
    label(study, batch=3, by="bo", second=1.0)
    again = [row for row in sheet_rows(study) if row["item"] in first]
    assert len(again) == 3 and {row["by"] for row in again} == {"bo"}
    fill(study, lambda row: by_number(truth)(row) if row["item"] in first else "", by="bo")
    label(study)
    opinions = {each.by for each in read_labels(study) if each.item == again[0]["item"]}
    assert opinions == {"Ann", "bo"}


def test_kappa_is_agreement_beyond_chance() -> None:
    def pairs(*opinions: tuple[str, str]) -> list[PoolLabel]:
        labels = []
        for i, (one, other) in enumerate(opinions):
            labels += [PoolLabel(str(i), one, "ann", {}), PoolLabel(str(i), other, "bo", {})]
        return labels

    # 20 inputs: both "a" 8 times, both "b" 7, and 5 times not; by chance .65 * .6 + .35 * .4 = .53 or so
    opinions = [("a", "a")] * 8 + [("b", "b")] * 7 + [("a", "b")] * 3 + [("b", "a")] * 2
    agreed = agreement(pairs(*opinions))
    chance = (11 * 10 + 9 * 10) / 400
    assert agreed is not None and agreed.share == 0.75
    assert agreed.kappa == pytest.approx((0.75 - chance) / (1 - chance))
    assert agreement(pairs(*opinions[:9])) is None
    always = agreement(pairs(*[("a", "a")] * 12))
    assert always is not None and always.kappa is None


def noisy_pairs(error: float, inputs: int, rng: np.random.Generator) -> list[PoolLabel]:
    """Two people's labels of inputs with two answers, each wrong this often, independently."""
    labels = []
    for item in range(inputs):
        right = rng.choice(["a", "b"])
        for by in ("ann", "bo"):
            label = right if rng.random() >= error else {"a": "b", "b": "a"}[right]
            scores = {answer: float(answer == label) for answer in ("a", "b")}
            labels.append(PoolLabel(str(item), label, by, scores))
    return labels


@pytest.mark.parametrize("error", [0.0, 0.1, 0.3, 0.5])
def test_reliability_is_the_share_of_a_difference_that_labels_show(error: float) -> None:
    labels = noisy_pairs(error, 4_000, np.random.default_rng(2))
    assert reliability(labels) == pytest.approx(1 - 2 * error, abs=0.15 if error == 0.5 else 0.03)
    assert reliability(labels[:18]) is None


def test_labels_on_which_two_people_agree_by_chance_do_not_count(answered: Path) -> None:
    pool, table = two_way_pool(lambda i: "ab"[i % 2]), disagreeing(0.3, 0.0)
    seconds = [replace(label, by="bo", right=None, scores={"a": 0.0, "b": 0.0}) for label in pool.labels[:20]]
    doubted = replace(pool, labels=(*pool.labels, *seconds))
    (why,) = why_not(doubted, table, answered)
    assert "agree hardly more often than by chance" in why
    agreeing = replace(pool, labels=(*pool.labels, *(replace(label, by="bo") for label in pool.labels)))
    assert not why_not(agreeing, table, answered) and agreeing.scores(table.names).reliability == 1


def test_the_order_is_random_within_a_stratum_and_prefers_what_is_in_doubt() -> None:
    inputs = tuple(Example(str(i), str(i), "") for i in range(3_000))
    relevant, beside, same = ("a", "b", "b"), ("a", "a", "b"), ("a", "a", "a")
    answers = tuple(tuple((a,) for a in kind) for kind in (relevant, beside, same) for _ in range(1_000))
    order = LabelOrder(winner="one", doubts={"two": 0.4, "three": 0.02})
    pool = Pool(inputs, ("one", "two", "three"), answers, order=order)
    assert np.unique(pool.weights[:1_000]) == 1 and np.unique(pool.weights[1_000:2_000]) == 0.25
    draws = np.random.default_rng(0).random(3_000)
    first = next_inputs(pool, draws, 150)
    counts = np.bincount(np.array(first) // 1_000, minlength=3)
    assert counts[2] == 0 and 2.2 < counts[0] / counts[1] < 6
    inside = np.array([i for i in first if i < 1_000])
    assert abs(inside.mean() - 500) < 90  # no end of the file comes earlier
    done = tuple(PoolLabel(str(i), "a", "", {"a": 1.0, "b": 0.0}) for i in first[1:])
    assert next_inputs(replace(pool, labels=done), draws, 1) == first[:1]  # what was left out comes again


def test_the_order_rests_on_the_test_set_alone(study: Path, truth: dict[str, str]) -> None:
    before = read_manifest(study).label_order
    fill(study, by_number(truth))
    label(study)
    assert before is not None and read_manifest(study).label_order == before
    alone = reopen(study)
    decision = replace(alone, table=replace(alone.table, pool=None)).decide(alone.task, alone.costs)
    assert label_order(decision) == before


def test_an_answer_that_comes_after_a_label_is_scored_by_it(study: Path, truth: dict[str, str]) -> None:
    fill(study, by_number(truth))
    label(study)
    pool = opened(study)
    labels = [replace(label, scores={}) for label in pool.labels]  # as before the answers came
    assert not replace(pool, labels=tuple(labels)).labelled  # an answer without a score counts for nobody
    write_labels(study, labels)
    scored, new = take_labels(study, study_task(study), pool)
    assert new == 0 and scored == list(pool.labels) == read_labels(study)


def test_what_cannot_be_labelled_is_refused_with_the_next_step(finished: Result, tmp_path: Path) -> None:
    assert finished.folder is not None
    folder = tmp_path / "study"
    shutil.copytree(finished.folder, folder)
    with pytest.raises(
        StudyError, match=r"no pool that two of its options have answered; give one: tunepoint label"
    ):
        label(folder)
    empty = tmp_path / "pool.csv"
    empty.write_text("text,customer_id\n,\n")
    with pytest.raises(DataError, match="no row adds to the pool"):
        label(folder, pool=empty)
    empty.write_text("message\nhello\n")
    with pytest.raises(DataError, match="no column 'text'"):
        label(folder, pool=empty)
    content = json.loads((folder / "task.json").read_text())
    content["task"]["score"]["metric"] = "my_scorer:score"
    (folder / "task.json").write_text(json.dumps(content))
    with pytest.raises(TaskError, match="answers are scored by my_scorer:score"):
        label(folder)


def test_rows_without_a_right_answer_and_data_pool_are_the_pool_of_a_study(
    finished: Result, tmp_path: Path
) -> None:
    assert finished.folder is not None
    folder = tmp_path / "study"
    shutil.copytree(finished.folder, folder)
    content = json.loads((folder / "task.json").read_text())
    original = Path(content["folder"])
    shutil.copy(original / "messages.csv", tmp_path / "messages.csv")
    with (tmp_path / "messages.csv").open("a", encoding="utf-8") as file:
        file.write("2026-01-01,c1,,Where is my invoice of last month?\n")
    (tmp_path / "more.csv").write_text(
        "text,customer_id\nHow do I pair the new hub?,c2\nDelete my data.,c2\n"
    )
    content["folder"], content["task"]["data"]["pool"] = str(tmp_path), "more.csv"
    (folder / "task.json").write_text(json.dumps(content))
    state = label(folder)
    texts = {example.input: example.group for example in state.pool.inputs}
    assert texts == {
        "How do I pair the new hub?": "c2",
        "Delete my data.": "c2",
        "Where is my invoice of last month?": "c1",
    }
    assert state.added is not None and state.added.new == 3
    assert read_manifest(folder).pool_answered == 3
    answered = (folder / "pool.jsonl").read_bytes()
    assert label(folder).added is None and (folder / "pool.jsonl").read_bytes() == answered


def test_captured_traffic_joins_the_pool(finished: Result, tmp_path: Path) -> None:
    assert finished.folder is not None
    folder = tmp_path / "study"
    shutil.copytree(finished.folder, folder)
    with open_store(tmp_path / "capture.sqlite") as store:
        store.add(
            [
                CapturedRequest(
                    f"r{i}", float(i), "small", "arm", "champion", "m", f"Invoice {i}?", "billing", user="u"
                )
                for i in range(4)
            ]
            + [CapturedRequest("other", 9.0, "another task", "arm", "champion", "m", "Hello?", "billing")]
        )
        state = label(folder, traffic=pool_inputs(store, "small"))
    assert sorted(example.input for example in state.pool.inputs) == [f"Invoice {i}?" for i in range(4)]
    assert {example.group for example in state.pool.inputs} == {"u"}


def test_a_pool_changes_nothing_about_what_a_study_is_of(tmp_path: Path) -> None:
    data = {"path": "x.csv", "input": "a", "target": "b"}
    plain, pooled = (
        Task.parse({"name": "t", "data": {**data, **more}}).trials_fingerprint()
        for more in ({}, {"pool": "p.csv"})
    )
    assert plain == pooled


@pytest.mark.parametrize(
    ("kind", "cell", "right"),
    [
        ("text", "1945", "1945"),  # a number is an answer, not a column
        ("text", "#2", "b"),
        ("number", "1,945", "1,945"),
        ("number", "none", None),
        ("json", '{"a": 1}', '{"a": 1}'),
        ("label", "2", "b"),
        ("label", "NONE", None),
    ],
)
def test_what_stands_in_a_cell(kind: str, cell: str, right: str | None) -> None:
    filled = Filled("sheet:2", "i", cell, 2, "")
    task = Task.parse({"name": "t", "answer": {"kind": kind}})
    assert _right(filled, ["a", "b"], task, ["a", "b", "c"]) == right


@pytest.mark.parametrize(
    ("kind", "cell", "labels", "message"),
    [
        ("number", "many", [], "no number; write #1 to #2, the right answer itself, or none"),
        ("json", "{bad", [], "no JSON; write #1 to #2 or the right answer itself"),
        ("label", "3", ["1", "2", "4"], "'3' is no label of the task"),
    ],
)
def test_cells_that_are_no_answer_are_named(kind: str, cell: str, labels: list[str], message: str) -> None:
    task = Task.parse({"name": "t", "answer": {"kind": kind}})
    with pytest.raises(DataError, match=re.escape(message)):
        _right(Filled("sheet:2", "i", cell, 2, ""), ["a", "b"], task, labels)
    label_none = _right(
        Filled("sheet:2", "i", "none", 2, ""), ["a", "b"], Task.parse({"name": "t"}), ["none"]
    )
    assert label_none == "none"
    with pytest.raises(DataError, match="1 answers are shown, and the pool has 2"):
        _right(Filled("sheet:2", "i", "#1", 1, ""), ["a", "b"], task, labels)


def test_inputs_of_known_groups_and_near_copies_are_left_out(tmp_path: Path) -> None:
    known = [Example("1", "My invoice of March is wrong, please send me another one", "billing", group="c1")]
    brought = [
        PoolInput("My invoice of March is wrong, please send me another one!", "c2"),
        PoolInput("Where is the hub?", "c1"),
        PoolInput("How do I pair the hub?", "c3"),
        PoolInput("How do I pair  the hub?", "c4"),
        PoolInput(""),
    ]
    pool, added = extended(PoolInputs(), Brought(brought, len(brought)), known, "file")
    assert [example.input for example in pool.asked] == ["How do I pair the hub?"]
    assert (added.new, added.known, added.known_groups, added.empty) == (1, 2, 1, 1)
    # they are traffic all the same: what looks new is a share of them too
    assert {example.input for example in pool.familiar} == {brought[0].text, "Where is the hub?"}
    write_pool(tmp_path, pool)
    assert read_pool(tmp_path) == pool
    again, added = extended(pool, Brought(brought, len(brought)), known, "file")
    assert again == pool and added.new == 0


def test_a_declined_quote_adds_nothing(finished: Result, tmp_path: Path) -> None:
    assert finished.folder is not None
    folder = tmp_path / "study"
    shutil.copytree(finished.folder, folder)
    (tmp_path / "pool.csv").write_text("text,customer_id\nHow do I pair the hub?,c7\n")

    def decline(quote: PoolQuote) -> None:
        raise StudyError(f"no: {quote}")

    with pytest.raises(StudyError, match="no: The finalists answer 1 inputs"):
        label(folder, pool=tmp_path / "pool.csv", confirm=decline)
    assert not (folder / "pool_inputs.jsonl").exists()


def test_what_runs_today_answers_no_pool(finished: Result, tmp_path: Path) -> None:
    assert finished.folder is not None
    folder = tmp_path / "study"
    shutil.copytree(finished.folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["sealed_test"]["finalists"][1:]:
        manifest["arms"][name]["kind"] = "incumbent"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "pool.csv").write_text("text,customer_id\nHow do I pair the hub?,c7\n")
    with pytest.raises(StudyError, match="1 of its options can answer new inputs"):
        label(folder, pool=tmp_path / "pool.csv")


def test_the_command_says_how_it_stands_and_what_comes_next(study: Path, truth: dict[str, str]) -> None:
    fill(study, by_number(truth))
    done = CliRunner().invoke(app, ["label", str(study), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "The options disagree on" in done.output
    assert re.search("Not settled|Settled after|The kind is settled", done.output)
    content: dict[str, Any] = json.loads(CliRunner().invoke(app, ["label", str(study), "--json"]).output)
    assert content["new_labels"] == 0 < content["labeled"] <= content["disputed"] < content["inputs"]


def test_a_settled_study_writes_no_sheet(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Labelling, "settled", property(lambda self: True))
    assert label(study).sheet is None and not (study / SHEET).exists()


def disagreeing(share: float, lead: float) -> Table:
    """200 items on which two options give another answer to a share, and one is ahead."""
    trials = []
    for i in range(200):
        place = i / 200
        first = "right" if place < (share - lead) / 2 or place >= share else "wrong"
        second = "wrong" if place < (share - lead) / 2 else "right"
        for arm, answer in (("prompted", first), ("tuned", second)):
            trials.append(Trial(arm=arm, item=str(i), answer=answer, score=float(answer == "right")))
    return tabulate(trials)


def test_labels_needed_are_fewer_than_items_by_the_share_of_disagreement() -> None:
    needed = {}
    for share in (0.1, 0.4):
        table = disagreeing(share, 0.02)
        joint, task = joint_of(table), Task.parse({"name": "t", "limits": {"margin": 0.01}})
        costs = (
            ArmCost("prompted", "prompt", deterministic=True),
            ArmCost("tuned", "tuned", deterministic=True),
        )
        evidence = evidence_of(table, costs, task, joint, np.random.default_rng(0))
        kinds: tuple[ArmKind, ...] = ("prompt", "tuned")
        few, many = (labels_needed(table, kinds, joint, evidence, factor) for factor in (3.0, 6.0))
        assert labels_needed(table, ("incumbent", "tuned"), joint, evidence, 3.0) is None
        assert few is not None and many is not None and few.labels < many.labels
        random = 200 * (3.0 - 1)
        assert few.labels == pytest.approx(share * random, rel=0.2)
        assert few.inputs == pytest.approx(few.labels / share, rel=0.1)
        needed[share] = few.labels
    assert needed[0.1] < 0.35 * needed[0.4]


def test_an_undecided_study_asks_for_labels_in_words_minutes_and_dollars() -> None:
    table = disagreeing(0.1, -0.005)
    content = {
        "name": "t",
        "data": {"path": "x.csv", "input": "a", "target": "b"},
        "limits": {"margin": 0.03},
        "traffic": {"queries_per_month": 1_000_000},
    }
    costs = (
        ArmCost("prompted", "prompt", usd_per_query=Range.parse(0.001), deterministic=True),
        ArmCost("tuned", "tuned", upfront_usd=Range.parse(2_000), deterministic=True),
    )
    needed = decide(table, costs, Task.parse(content), np.random.default_rng(0)).evidence_needed
    assert needed is not None and needed.labels and needed.test_items and needed.labels < needed.test_items
    assert needed.usd is not None and needed.usd["labels"] < needed.usd["test_items"]
    assert re.match(
        r"About [\d,]+ more labels where the options disagree \(about \$[\d,.]+ and [\d,]+ (minutes|hours)\) "
        r"would settle it with a probability of 80%. They are found among [\d,]+ more inputs without a label",
        needed.why,
    ), needed.why
    own = Task.parse({**content, "score": {"metric": "my_scorer:score"}})
    other = decide(table, costs, own, np.random.default_rng(0)).evidence_needed
    assert other is not None and other.labels is None


def test_a_paid_pool_is_quoted_capped_and_resumed_without_paying_twice(tmp_path: Path) -> None:
    with serving(Fake(mostly_right)) as fake:
        entry = asked(fake, price={"input": 1_000.0, "output": 4_000.0})  # calls, not seconds, are dear
        run(routing(tmp_path, 100, models=[entry], search={"calls": 0}), out=tmp_path / "study")
        study, lines = tmp_path / "study", ["text"]
        lines += [f"{('invoice', 'pairing')[i % 2]} {900_000 + i} {i * i}" for i in range(40)]
        (tmp_path / "pool.csv").write_text("\n".join(lines) + "\n")
        asked_before, quotes = len(fake.calls), []
        spent = read_manifest(study).spent_usd
        with pytest.raises(BudgetReached, match="spending cap"):  # a call sets $2.24 aside
            label(study, pool=tmp_path / "pool.csv", max_usd=spent + 2.6, confirm=quotes.append)
        (quote,) = quotes
        assert quote.inputs == 40 and quote.usd > 2 and str(quote).endswith(f"about ${quote.usd:,.2f}.")
        first = len(fake.calls) - asked_before
        state = label(study, confirm=quotes.append)  # what the cap left out
        assert len(state.pool.inputs) == 40
        prompts = [json.dumps(call["messages"]) for call in fake.calls[asked_before:]]
        assert 0 < first < len(prompts) == len(set(prompts))
        calls = len(fake.calls)
        label(study)
        assert len(fake.calls) == calls and len(quotes) == 2


def two_way_pool(right_of: Callable[[int], str]) -> Pool:
    """60 inputs that one option answers "a" and the other "b", with labels of one person."""
    inputs = tuple(Example(str(i), f"input {i}", "") for i in range(200))
    answers = tuple((("a",), ("b" if i < 60 else "a",)) for i in range(200))
    labels = []
    for i in range(60):
        right = right_of(i)
        labels.append(PoolLabel(str(i), right, "Ann", {"a": float(right == "a"), "b": float(right == "b")}))
    return Pool(inputs, ("prompted", "tuned"), answers, tuple(labels))


def test_a_sheet_that_nobody_read_does_not_count(answered: Path) -> None:
    blank = two_way_pool(lambda i: "a")
    seed = read_manifest(answered).seed
    first = {i: shown(blank, i, seed)[0] for i in range(60)}
    assert {"a", "b"} == set(first.values())  # the order says nothing
    table = disagreeing(0.3, 0.0)
    (why,) = why_not(two_way_pool(first.__getitem__), table, answered)
    assert "the first column is right in 60 of 60 labels by ann, and about 30 by chance" in why
    assert not why_not(two_way_pool(lambda i: "ab"[i % 2]), table, answered)


def test_a_pool_that_differs_from_the_test_set_does_not_count(answered: Path) -> None:
    (why,) = why_not(two_way_pool(lambda i: "a"), disagreeing(0.3, 0.2), answered)
    assert "they show other differences between the options than the test set (p = " in why
    assert not why_not(two_way_pool(lambda i: "b" if i % 5 else "a"), disagreeing(0.3, 0.2), answered)


def test_labels_that_do_not_count_are_said_and_change_nothing(
    study: Path, truth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((study / "decision.json").read_text())
    monkeypatch.setattr("tunepoint.study.labelling.counting._one_column", lambda pool, seed: ["Not read."])
    fill(study, by_number(truth))
    done = CliRunner().invoke(app, ["label", str(study), "--quiet"])
    assert done.exit_code == 0 and "Not read." in done.output
    after = json.loads((study / "decision.json").read_text())
    assert "Not read." in after["caveats"]
    assert after["differences"] == before["differences"]


class CountedGateway:
    """What the loop asks a gateway for during a canary, and what it asks of it."""

    def __init__(self, champion: str, challenger: str, unclear: tuple[str, ...]) -> None:
        self.answer = Routes(frozenset({champion, challenger}), champion, True, "could be worse", unclear)
        self.changes: list[str] = []

    def routes(self, task: str) -> Routes:
        return self.answer

    def promote(self, task: str, arm: str, why: str) -> None:
        self.changes.append(f"promote {arm}")

    def roll_back(self, task: str, why: str) -> None:
        self.changes.append("roll back")


@pytest.mark.parametrize(
    ("right", "unclear", "status", "changes"),
    [
        (lambda i: "b" if i % 6 else "a", ("feedback",), "promoted", ["promote tuned #2"]),
        (lambda i: "b" if i % 6 else "a", (), "runs", []),  # its earlier steps are not over
        (lambda i: "a", ("feedback",), "rolled back", ["roll back"]),
        (lambda i: "ab"[i % 2], ("feedback",), "runs", []),
    ],
)
def test_a_canary_ends_by_labels_where_options_disagree(
    right: Callable[[int], str],
    unclear: tuple[str, ...],
    status: str,
    changes: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pool = two_way_pool(right)
    table = disagreeing(0.3, 0.0)
    with_labels = replace(table, pool=pool.scores(table.names))
    opened = SimpleNamespace(table=with_labels, manifest=SimpleNamespace(seed=0))
    monkeypatch.setattr("tunepoint.loop.labels.reopen", lambda study: opened)
    gateway = CountedGateway("prompted", "tuned #2", unclear)
    monkeypatch.setattr(LocalDeployment, "_client", property(lambda loop: gateway))
    task = Task.parse({"name": "t", "data": {"path": "x.csv", "input": "a", "target": "b"}})
    with open_store(tmp_path / "capture.sqlite") as store:
        loop = LocalDeployment(
            task, tmp_path, store, "capture.sqlite", "", Goals(), canary_settings={"margin": 0.05}
        )
        got, why = loop.canary(Challenger(str(tmp_path / "study-2"), "tuned", "tuned #2"))
    assert (got, gateway.changes) == (status, changes), why
    assert f"{len(pool.labelled)} labels where options disagree" in why
    if status == "runs":
        assert f"tunepoint label {tmp_path / 'study-2'} --store capture.sqlite" in why


def test_labels_that_contradict_the_test_set_are_drift(
    study: Path, truth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert labels_drift(study.parent / "none") == [] == labels_drift(study)
    fill(study, by_number(truth))
    label(study)
    assert labels_drift(study) == []
    monkeypatch.setattr("tunepoint.study.labelling.counting.ANOTHER_POOL", 1.1)
    monkeypatch.setattr("tunepoint.study.labelling.counting.MIN_LABELLED_GROUPS", 1)
    (reason,) = labels_drift(study)
    assert reason == "drift, labels of recent inputs: other differences between options than in study"

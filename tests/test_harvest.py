"""What captured traffic becomes, and why the rest is left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Fake, serving
from typer.testing import CliRunner

from tunepoint import Task
from tunepoint.capture.acceptance import Rules
from tunepoint.capture.harvest import Harvest, harvest, write_examples
from tunepoint.capture.opening import open_store
from tunepoint.capture.records import CapturedRequest, Feedback
from tunepoint.capture.store import Store
from tunepoint.cli.app import app
from tunepoint.data.examples import Example, read_examples
from tunepoint.errors import DataError

RNG = np.random.default_rng
SUBJECTS = (
    "invoice",
    "router",
    "password",
    "parcel",
    "screen",
    "battery",
    "voucher",
    "account",
    "cable",
    "speaker",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "capture.sqlite") as opened:
        yield opened


def task(**sections: Any) -> Task:
    return Task.parse(
        {
            "name": "t",
            "answer": {"labels": {"billing": "", "device": ""}},
            "models": [{"name": "openai/gpt-5-mini", "train_on_outputs": True}, {"name": "openai/other"}],
            **sections,
        }
    )


def captured(number: int, answer: str | None = "billing", **changes: Any) -> CapturedRequest:
    text = (
        f"the {SUBJECTS[number % 10]} of order {number * 7919} is {SUBJECTS[number * 3 % 10]} number {number}"
    )
    fields: dict[str, Any] = {
        "id": f"r{number}",
        "at": float(number),
        "task": "t",
        "arm": "prompted",
        "role": "champion",
        "model": "openai/gpt-5-mini",
        "input": text,
        "output": answer or "hm",
        "answer": answer,
        "format_ok": answer is not None,
        **changes,
    }
    return CapturedRequest(**fields)


def harvest_of(
    store: Store, rows: list[CapturedRequest], feedback: list[Feedback], of: Task | None = None, **rules: Any
) -> Harvest:
    store.add(rows, feedback)
    seen, sealed = rules.pop("known", ()), rules.pop("sealed", ())
    return harvest(store, of or task(), seen, sealed, RNG(0), Rules(**rules))


def test_each_way_of_being_accepted_and_of_being_left(store: Store) -> None:
    rows = [
        captured(1),
        captured(2),
        captured(3),
        captured(4),
        captured(5),
        captured(6, None),
        captured(7, "sales"),
        captured(8),
        captured(9),
        captured(10, id="c8", copy_of="r8", role="shadow", arm="tuned", input="x"),
        captured(11, "device", id="c9", copy_of="r9", role="shadow", arm="tuned", input="x"),
        captured(12, status=502, answer=None),
        captured(13, model="openai/other"),
        captured(14, input=" "),
        captured(15),
        captured(16, model="openai/other"),
    ]
    feedback = [
        Feedback("r1", 1.0, 0.95),
        Feedback("r2", 1.0, thumbs=True),
        Feedback("r3", 1.0, 0.5),
        Feedback("r4", 1.0, thumbs=False, correction="device"),
        Feedback("r6", 1.0, thumbs=True),
        Feedback("r7", 1.0, thumbs=True),
        Feedback("r13", 1.0, 1.0),
        Feedback("r15", 1.0, correction="no such label"),
        Feedback("r16", 1.0, correction="device"),
    ]
    harvest = harvest_of(store, rows, feedback, licence="own traffic")
    got = {
        item.request: (item.example.target, item.accepted, item.example.origin) for item in harvest.examples
    }
    model = "openai/gpt-5-mini, arm prompted"
    assert got == {
        "r1": ("billing", "feedback", model),
        "r2": ("billing", "feedback", model),
        "r4": ("device", "corrected", "human"),
        "r8": ("billing", "agreement", model),
        "r16": ("device", "corrected", "human"),  # a person's word, whoever wrote before
    }
    assert harvest.questions == 13 and all(item.example.licence == "own traffic" for item in harvest.examples)
    assert harvest.rejections == {
        "rejected by feedback": 1,
        "that nobody accepted": 1,
        "with an answer that could not be parsed": 1,
        "with an answer that is not a label of the task": 1,
        "with another answer from another arm": 1,
        "written by openai/other: set train_on_outputs = true in [[models]] if its terms allow training": 1,
        "without text, or with text that was not kept": 1,
        "corrected to a label that the task does not have": 1,
    }
    assert (
        "5 examples from 13 questions: 2 corrected by people, 2 accepted by feedback, 1 with the same answer"
        in str(harvest)
    )


def test_one_rejection_outweighs_praise(store: Store) -> None:
    harvest = harvest_of(store, [captured(1)], [Feedback("r1", 1.0, 1.0), Feedback("r1", 2.0, thumbs=False)])
    assert harvest.examples == () and harvest.rejections == {"rejected by feedback": 1}


def test_no_label_is_taken_that_the_task_does_not_have(store: Store) -> None:
    examples = [Example(f"e{n}", f"example {n}", target) for n, target in enumerate(("billing", "device"))]
    harvest = harvest_of(
        store,
        [captured(1, "BILLING"), captured(2), captured(3), captured(4, "refund")],
        [
            Feedback("r1", 1.0, 1.0),
            Feedback("r2", 1.0, correction="<script>"),
            Feedback("r3", 1.0, correction="Device"),
            Feedback("r4", 1.0, 1.0),
        ],
        task(answer={"kind": "label"}),  # the labels are those of the data
        known=examples,
    )
    assert [item.example.target for item in harvest.examples] == ["device", "billing"]
    assert harvest.rejections == {
        "corrected to a label that the task does not have": 1,
        "with an answer that is not a label of the task": 1,
    }
    with pytest.raises(DataError, match=r"list them in answer\.labels"):
        harvest_of(store, [], [], task(answer={"kind": "label"}))


def test_no_target_is_taken_that_no_answer_can_be(store: Store) -> None:
    harvest = harvest_of(
        store,
        [captured(1, "12"), captured(2, "3")],
        [Feedback("r1", 1.0, correction="a dozen or so"), Feedback("r2", 1.0, correction="4")],
        task(answer={"kind": "number"}),
    )
    assert [item.example.target for item in harvest.examples] == ["4"]
    assert harvest.rejections == {"corrected to what is not a number": 1}


def test_the_sealed_test_is_never_touched_and_nothing_is_taken_twice(store: Store) -> None:
    rows = [captured(n) for n in range(6)]
    twin = rows[1].input.upper() + "!"
    near = rows[2].input + " now"
    rows += [captured(20, input=near), captured(21, input=rows[3].input)]
    feedback = [Feedback(row.id, 1.0, 1.0) for row in rows]
    harvest = harvest_of(
        store,
        rows,
        feedback,
        sealed=[Example("test:1", twin, "billing")],
        known=[Example("train:1", rows[0].input + " please", "billing")],
    )
    assert sorted(item.request for item in harvest.examples) == ["r2", "r3", "r4", "r5"]  # the earlier of two
    assert harvest.rejections == {
        "similar to another question": 2,
        "similar to the test set": 1,
        "similar to an existing example": 1,
    }


def test_questions_that_differ_in_their_signs_are_not_the_same(store: Store) -> None:
    rows = [
        captured(n, input=text) for n, text in enumerate(("what is 2 + 2", "What is 2 - 2?", "what is 2+2"))
    ]
    harvest = harvest_of(
        store,
        rows,
        [Feedback(row.id, 1.0, 1.0) for row in rows],
        sealed=[Example("test:1", "what is 2 * 2", "billing")],
    )
    assert sorted(item.request for item in harvest.examples) == ["r0", "r1"]
    assert harvest.rejections == {"similar to another question": 1}


@pytest.mark.parametrize("order", [1, -1])
def test_another_sign_hides_no_near_duplicate_in_the_sealed_test(store: Store, order: int) -> None:
    long = "the sum that I would like you to work out for me today, if you can find the time, is"
    sealed = [Example("t1", f"{long}: 2 - 2", "billing"), Example("t2", f"kindly {long}: 2 + 2", "billing")]
    row = captured(0, input=f"{long}: 2 + 2")
    harvest = harvest_of(store, [row], [Feedback(row.id, 1.0, 1.0)], sealed=sealed[::order])
    assert harvest.rejections == {"similar to the test set": 1}


def test_a_judge_is_asked_about_what_nobody_said_anything_of(store: Store) -> None:
    rows = [captured(n) for n in range(4)]
    seen: list[int] = []

    def judge(answers: Any, examples: Any) -> list[float | None]:
        seen.append(len(answers))
        return [1.0, 0.2, None]

    harvest = harvest_of(store, rows, [Feedback("r3", 1.0, 1.0)], judge=judge)
    assert seen == [3] and {item.request: item.accepted for item in harvest.examples} == {
        "r0": "scorer",
        "r3": "feedback",
    }
    assert harvest.rejections == {"rejected by the judge": 1, "that the judge could not grade": 1}


def test_labels_are_balanced_and_corrections_go_first(store: Store) -> None:
    rows = [captured(n, "billing" if n % 4 else "device") for n in range(40)]
    feedback = [Feedback(row.id, 1.0, 1.0) for row in rows[:39]] + [
        Feedback("r39", 1.0, correction="billing")
    ]
    harvested = harvest_of(store, rows, feedback, most_per_label=10)
    assert harvested.by_target == {"billing": 10, "device": 10}
    assert any(item.request == "r39" for item in harvested.examples)
    again = harvest(store, task(), (), (), RNG(0), Rules(most_per_label=10))
    assert again.examples == harvested.examples
    assert harvested.rejections == {"beyond 10 examples of their label": 20}


def test_labels_that_the_others_contradict_are_left(store: Store) -> None:
    rows = [captured(n, "billing" if n % 2 else "device") for n in range(40)]

    def embed(texts: Any) -> np.ndarray:
        number = np.array([int(text.rsplit(" ", 1)[1]) for text in texts])
        side = np.where((number % 2 == 1) ^ np.isin(number, [6, 7]), 1.0, -1.0)
        return np.stack([side, RNG(0).normal(0, 0.05, len(side))], axis=1).astype(np.float32)

    feedback = [Feedback(row.id, 1.0, 1.0) for row in rows if row.id != "r7"]
    feedback.append(Feedback("r7", 1.0, correction="billing"))
    harvest = harvest_of(store, rows, feedback, embed=embed)
    kept = {item.request for item in harvest.examples}
    assert "r6" not in kept and "r7" in kept  # what a person wrote stays
    assert len(kept) == 39 and harvest.rejections == {"with a label that the other examples contradict": 1}


def test_examples_can_be_given_as_data_again(store: Store, tmp_path: Path) -> None:
    data = {"path": "x.csv", "input": "text", "target": "queue", "group": "customer"}
    known = task(data=data)
    harvest = harvest_of(
        store,
        [captured(1, user="u1"), captured(2)],
        [Feedback("r1", 1.0, 1.0), Feedback("r2", 1.0, 1.0)],
        known,
    )
    write_examples(harvest, known, tmp_path / "examples.jsonl")
    assert known.data is not None
    examples, dropped = read_examples(tmp_path / "examples.jsonl", known.data.columns)
    assert not dropped and [example.group for example in examples] == ["u1", "r2"]
    row = json.loads((tmp_path / "examples.jsonl").read_text().splitlines()[0])
    assert row["accepted"] == "feedback" and row["origin"] == "openai/gpt-5-mini, arm prompted"
    with pytest.raises(DataError, match=r"written as .jsonl"):
        write_examples(harvest, known, tmp_path / "examples.csv")


def test_the_command_says_what_it_took_and_why_it_left_the_rest(tmp_path: Path, small_task: Path) -> None:
    loaded = Task.load(small_task)
    with open_store(tmp_path / "c.sqlite") as store:
        rows = [captured(n, "billing", task=loaded.name, model="this machine") for n in range(8)]
        store.add(rows, [Feedback(row.id, 1.0, 1.0) for row in rows[:6]])
    words = [
        "harvest",
        str(small_task),
        "--store",
        str(tmp_path / "c.sqlite"),
        "--to",
        str(tmp_path / "e.jsonl"),
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "6 examples from 8 questions: 6 accepted by feedback" in result.output
    assert "left out: 2 that nobody accepted" in result.output
    assert len((tmp_path / "e.jsonl").read_text().splitlines()) == 6
    judged = CliRunner().invoke(app, [*words, "--judge"])
    assert judged.exit_code == 2 and "--judge: the task has no judge" in judged.output
    missing = CliRunner().invoke(app, [*words[:3], str(tmp_path / "none.sqlite"), *words[4:]])
    assert missing.exit_code == 2 and "no such capture store" in missing.output


def test_the_tasks_judge_grades_what_nobody_has_judged(tmp_path: Path) -> None:
    def grade(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        prompt = messages[-1]["content"]
        assert "<reference>" not in prompt
        return f"Fine.\nAnswer: {5 if 'number 1' in prompt else 1}"

    with serving(Fake(grade)) as server:
        content = {
            "name": "t",
            "answer": {"kind": "text"},
            "score": {"metric": "judge", "judge": f"{server.url}#tiny", "rubric": "Is it polite?"},
        }
        lines = ['name = "t"', "[answer]", 'kind = "text"', "[score]", 'metric = "judge"']
        lines += [f"judge = {json.dumps(content['score']['judge'])}", 'rubric = "Is it polite?"']
        (tmp_path / "task.toml").write_text("\n".join(lines))
        with open_store(tmp_path / "c.sqlite") as store:
            store.add([captured(n, "yes", model="this machine") for n in (1, 2)])
        words = [
            "harvest",
            str(tmp_path),
            "--store",
            str(tmp_path / "c.sqlite"),
            "--to",
            str(tmp_path / "e.jsonl"),
        ]
        result = CliRunner().invoke(app, [*words, "--judge"])
    assert result.exit_code == 0, result.output
    assert "1 examples from 2 questions: 1 accepted by the judge" in result.output
    assert "left out: 1 rejected by the judge" in result.output

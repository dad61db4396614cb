"""Studies with a chat model: a real client, a fake server that knows some of the answers."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from conftest import write_small
from servers import KEY, Fake, as_schema, serving
from typer.testing import CliRunner

from tunepoint import Example, Task, prepare, read_trials, run
from tunepoint.cli.app import app
from tunepoint.cli.doctor import diagnose
from tunepoint.errors import BudgetReached, ModelError, StudyError, TaskError
from tunepoint.models.providers import PROVIDERS, Provider, short_names
from tunepoint.stats.racing import look_sizes
from tunepoint.study.finalists import open_finalists
from tunepoint.study.prompt_search import searches_of
from tunepoint.study.quote import Quote
from tunepoint.study.racing import Standing, race, unreadable_reply
from tunepoint.trials.scorers import json_fields
from tunepoint.trials.trial import Trial

pytestmark = pytest.mark.usefixtures("chat_alone")

BRANDS = ("Acme", "Globex", "Initech", "Umbra")


def goods(folder: Path, count: int = 120) -> Path:
    """A task of extraction: brand and size in a product title."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        brand, size = BRANDS[i % 4], int(rng.integers(1, 99))
        words = " ".join(f"{a}{b}" for a, b in rng.integers(100, 999, (3, 2)).tolist())
        target = {"brand": brand, "size": str(size)}
        lines.append(json.dumps({"text": f"{words} {brand} box of {size}", "label": target}))
    (folder / "goods.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def extract(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
    """Right with demonstrations; without them it forgets the size of one brand; prose in one wording."""
    text = messages[-1]["content"]
    titles = re.findall(r"(\w+) box of (\d+)", "\n".join(m["content"] for m in messages))
    if not titles:
        return "ok"
    title = titles[-1]
    answer = {"brand": title[0], "size": title[1]}
    shown = sum(message["role"] == "assistant" for message in messages) > 1
    if title[0] == "Umbra" and not shown:
        del answer["size"]
    if "<input>" in text and "could not be read" not in text and int(title[1]) % 2:
        return f"The brand is {title[0]}."
    return json.dumps(answer)


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving(Fake(extract)) as running:
        yield running


TWO_STYLES = ["zero-shot", "few-shot"]
"""For tests in which other ways of prompting would prove nothing, and take most of the calls."""


def asked(fake: Fake, **more: Any) -> dict[str, Any]:
    """The server as a model of a task."""
    return {"name": f"{fake.url}#tiny", "price": {"input": 1, "output": 4}, "styles": TWO_STYLES, **more}


def task(folder: Path, fake: Fake, **more: Any) -> Task:
    return Task.parse(
        {
            "name": "goods",
            "instruction": "Extract brand and size.",
            "data": {"path": "goods.jsonl", "input": "text", "target": "label"},
            "answer": {"kind": "json"},
            "score": {"metric": "json_fields"},
            "models": [asked(fake)],
            **more,
        },
        folder=folder,
    )


def test_a_study_of_a_chat_model_alone(fake: Fake, tmp_path: Path) -> None:
    quotes: list[Quote] = []
    out = tmp_path / "study"
    all_styles = [asked(fake, styles=None)]
    result = run(task(goods(tmp_path), fake, models=all_styles), out=out, confirm=quotes.append)
    assert result.decision.verdict in ("prompt", "undecided")
    assert "few-shot" in result.decision.winner
    finalists = {finalist["arm"]: finalist for finalist in result.document["finalists"]}
    assert len(finalists) == 5 and {f["kind"] for f in finalists.values()} == {"prompt"}
    winner = result.decision.finalist(result.decision.winner)
    assert winner.score.estimate > 0.99
    assert winner.cost_per_query_usd.likely > 0 and winner.p95_seconds is not None
    manifest = json.loads((out / "manifest.json").read_text())
    facts = manifest["models"][f"{fake.url}#tiny"]
    assert facts["abilities"]["schema"] and facts["price"] == "declared in the task"
    calls = len(fake.calls)
    assert quotes[0].calls.low * 0.5 <= calls <= quotes[0].calls.high
    assert manifest["labels"] == {} and result.audit is not None and result.audit.thin == {}
    spent = sum(trial.cost_usd or 0 for trial in read_trials(out / "trials.jsonl"))
    assert spent < manifest["spent_usd"] <= quotes[0].usd.high
    (line,) = result.notes
    assert line.startswith(f"{fake.url}#tiny: {calls:,} calls, ") and "output tokens, $" in line
    assert float(line.rpartition("$")[2]) == pytest.approx(manifest["calls_usd"], abs=1e-4)
    ladder = json.loads((out / "measurements.json").read_text())["ladder"]
    assert {row["arm"].split(", ")[-1] for row in ladder} >= {
        "plain",
        "terse",
        "tagged",
        "expert",
        "sections",
    }
    races = manifest["races"]
    assert {row["arm"]: row["stopped_by"] for row in ladder if row["arm"] in races} == {
        arm: place["stopped_by"] for arm, place in races.items()
    }
    assert any(place.get("unreadable") for place in races.values())  # it writes no "Answer:" line
    again = run(task(goods(tmp_path), fake, models=all_styles), out=out)
    assert len(fake.calls) == calls and again.document["finalists"] == result.document["finalists"]


@pytest.mark.no_cover  # what it runs, others cover
def test_several_decodes_ask_the_finalists_again_and_choose_on_one(fake: Fake, tmp_path: Path) -> None:
    quotes: list[Quote] = []
    model = asked(fake, decodes=3)
    out = tmp_path / "study"
    folder = goods(tmp_path, 60)
    result = run(task(folder, fake, models=[model]), out=out, confirm=quotes.append)
    trials = read_trials(out / "trials.jsonl")
    assert {trial.decode for trial in trials} == {None, "1", "2"}
    assert len(trials) == 3 * len({(trial.arm, trial.item) for trial in trials})
    assert {trial.decode for trial in read_trials(out / "dev.jsonl")} == {None}
    assert quotes[0].calls.low * 0.5 <= len(fake.calls) <= quotes[0].calls.high
    assert {body.get("seed") for body in fake.calls} >= {0, 1_000, 2_000}  # each decode a call of its own
    assert all(f["standard_errors"]["decodes"] is not None for f in result.document["finalists"])
    calls = len(fake.calls)
    run(task(folder, fake, models=[model]), out=out, replay=True)
    assert len(fake.calls) == calls


@pytest.mark.no_cover  # what it runs, others cover
def test_test_items_are_bought_only_while_they_are_worth_their_price(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunepoint.study.holdout.FIRST_ROUND", 10)
    monkeypatch.setattr("tunepoint.study.holdout.NEXT_ROUND", 5)
    folder, out = goods(tmp_path, 70), tmp_path / "study"
    cheap: dict[str, Any] = {"value": {"error_usd": 1e-9}, "traffic": {"queries_per_month": 10}}
    stopped = run(task(folder, fake, **cheap), out=out)
    test_size = len(json.loads((out / "manifest.json").read_text())["items"]["test"])
    assert stopped.decision.items == 10 < test_size
    assert any(f"stopped after 10 of {test_size} items" in caveat for caveat in stopped.decision.caveats)
    calls, quotes = len(fake.calls), []
    again = run(task(folder, fake, **cheap), out=out, confirm=quotes.append)
    assert len(fake.calls) == calls and not quotes and again.decision.items == 10
    dear: dict[str, Any] = {"value": {"error_usd": 1_000}, "traffic": {"queries_per_month": 1_000_000}}
    measured = run(task(folder, fake, **dear), out=out, confirm=quotes.append)
    assert quotes and len(fake.calls) > calls and measured.decision.items > 10
    ended = any("the test stopped after" in caveat for caveat in measured.decision.caveats)
    assert ended == (measured.decision.items < test_size)
    assert run(task(folder, fake), out=out).decision.items == test_size  # without a price all are asked


@pytest.mark.no_cover  # what it runs, others cover
def test_a_cap_is_never_passed_and_a_second_run_pays_for_the_rest_only(fake: Fake, tmp_path: Path) -> None:
    out = tmp_path / "study"
    asking = task(goods(tmp_path, 60), fake)
    with pytest.raises(BudgetReached, match="the next call may cost"):
        run(asking, out=out, max_usd=0.02)
    paid = len(fake.calls)
    dollars = sum(body_cost(body) for body in fake.calls)
    assert paid > 0 and 0.02 - 0.012 < dollars <= 0.02
    run(asking, out=out)
    fresh = tmp_path / "fresh"
    before = len(fake.calls)
    run(asking, out=fresh)
    assert len(fake.calls) - before == before


def body_cost(body: dict[str, Any]) -> float:
    """Dollars by the fake's own counting: words in at $1, two tokens out at $4 a million."""
    words = sum(len(turn["content"].split()) for turn in body["messages"])
    return (words * 1 + 2 * 4) / 1e6


@pytest.mark.no_cover  # what it runs, others cover
def test_faults_are_said_and_nothing_paid_for_is_lost(fake: Fake, tmp_path: Path) -> None:
    fake.faults = {5: "429", 9: "500", 20: "bad json", 31: "cut", 40: "refusal", 50: "empty", 61: "long"}
    result = run(task(goods(tmp_path, 60), fake), out=tmp_path / "study")
    caveats = " ".join(result.document["caveats"])
    for what in ("HTTP 429 (1)", "HTTP 500 (1)", "no connection (1)"):
        assert what in caveats, caveats


@pytest.mark.no_cover  # what it runs, others cover
def test_an_unreadable_reply_is_repaired_and_counted(fake: Fake, tmp_path: Path) -> None:
    fake.answer = lambda messages, body: (
        extract(messages, body) if "could not be read" in messages[-1]["content"] else "Let me think."
    )
    result = run(task(goods(tmp_path, 60), fake), out=tmp_path / "study")
    best = result.document["finalists"][0]
    assert best["format_ok"] == 1.0 and best["repaired"] == 1.0
    assert any("at the second attempt" in caveat for caveat in result.document["caveats"])


@pytest.mark.no_cover  # what it runs, others cover
def test_keys_are_in_no_file(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPOINT_API_KEY", KEY)
    fake.key = KEY
    run(task(goods(tmp_path, 60), fake), out=tmp_path / "study")
    for path in (tmp_path / "study").rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    fake.key = "another"
    with pytest.raises(ModelError, match="the key was refused"):
        run(task(goods(tmp_path, 60), fake), out=tmp_path / "other")


def test_labels_prompted_by_a_chat_model_and_tuned_on_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    write_small(folder)
    known = {example.input: example.target for example in prepare(Task.load(folder), 0).examples}

    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        text = messages[-1]["content"]
        label = next((target for given, target in known.items() if given in text), "nothing")
        return f"Answer: {label}" if "Answer:" in messages[0]["content"] else as_schema(label, body)

    with serving(Fake(answer)) as fake:
        content = tomllib.loads((folder / "task.toml").read_text())
        content["models"] = [asked(fake)]
        result = run(Task.parse(content, folder=folder), out=tmp_path / "study")
    kinds = {finalist["kind"] for finalist in result.document["finalists"]}
    assert kinds == {"prompt", "tuned", "cascade", "baseline"}
    prompted = next(f for f in result.document["finalists"] if f["kind"] == "prompt")
    assert prompted["score"]["estimate"] == 1.0 and prompted["cost_per_query_usd"]["likely"] > 1e-6


def test_the_command_line_prints_the_quote_first(fake: Fake, tmp_path: Path) -> None:
    folder = goods(tmp_path, 60)
    (folder / "task.toml").write_text(
        f"""
name = "goods"
instruction = "Extract brand and size."
[data]
path = "goods.jsonl"
input = "text"
target = "label"
[answer]
kind = "json"
[score]
metric = "json_whole"
[[models]]
name = "{fake.url}#tiny"
price = {{ input = 1, output = 4 }}
styles = ["zero-shot", "few-shot"]
"""
    )
    words = ["run", str(folder), "--out", str(tmp_path / "s"), "--quiet"]
    refused = CliRunner().invoke(app, words)  # with no terminal to ask at
    assert refused.exit_code == 2 and fake.calls == []
    assert "This study calls chat models: about" in refused.stderr
    assert "Add --yes, or --max-usd DOLLARS" in refused.stderr
    capped = CliRunner().invoke(app, [*words, "--max-usd", "0.000001"])
    assert "is less than the study costs at best" in capped.stderr and "it buys about 0 of" in capped.stderr
    assert capped.exit_code == 2 and "spending cap" in capped.stderr
    called = CliRunner().invoke(app, [*words, "--yes"])
    assert called.exit_code == 0, called.stderr
    assert "This study calls chat models: about" in called.stderr
    assert "calls (at most" in called.stderr and "$" in called.stderr
    assert CliRunner().invoke(app, ["check", str(folder)]).exit_code == 0


def test_efforts_of_one_model_are_options_that_the_study_compares(fake: Fake, tmp_path: Path) -> None:
    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        brand, size = re.findall(r"(\w+) box of (\d+)", messages[-1]["content"])[-1]
        return json.dumps({"brand": brand, "size": size if body.get("reasoning_effort") == "low" else "1"})

    fake.answer = answer
    efforts = [asked(fake, styles=["zero-shot"], reasoning_effort=["none", "low"])]
    out = tmp_path / "study"
    asking = task(goods(tmp_path), fake, models=efforts, search={"calls": 0})
    result = run(asking, out=out)
    assert result.decision.winner.startswith("tiny (low effort) zero-shot")
    titles = {finalist.title for finalist in result.decision.finalists}
    assert titles == {"tiny (low effort), no examples", "tiny (none effort), no examples"}
    assert json.loads((out / "prompt.json").read_text())["parameters"] == {"reasoning_effort": "low"}
    single_effort = task(tmp_path, fake, models=[asked(fake, reasoning_effort="low")])
    assert single_effort.trials_fingerprint() != asking.trials_fingerprint()


@pytest.mark.no_cover  # what it runs, others cover
def test_a_better_model_ends_no_race_of_another_and_a_better_family_ends_its_models_own(
    fake: Fake, tmp_path: Path
) -> None:
    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        """The large one needs no examples, the small one is right with them half of the time."""
        brand, size = re.findall(r"(\w+) box of (\d+)", messages[-1]["content"])[-1]
        shown = sum(message["role"] == "assistant" for message in messages) > 1
        able = body["model"] == "tiny-large" if not shown else int(size) % 2
        return json.dumps({"brand": brand, "size": size} if able else {"brand": "?", "size": "?"})

    fake.answer = answer
    models = [asked(fake, name=f"{fake.url}#{name}") for name in ("tiny", "tiny-large")]
    asking = task(goods(tmp_path, 240), fake, models=models, search={"calls": 0})
    out = tmp_path / "study"
    result = run(asking, out=out)
    assert result.decision.winner.startswith("tiny-large zero-shot")
    assert {finalist.arm.split()[0] for finalist in result.decision.finalists} == {"tiny", "tiny-large"}
    races = json.loads((out / "manifest.json").read_text())["races"]
    for name, result_of in races.items():
        stopped_by = result_of["stopped_by"]
        assert stopped_by is None or stopped_by.split()[0] == name.split()[0], result_of
    # behind its own model's best by half of the items, long before the end of the validation set
    assert all(
        result_of["stopped_by"].startswith("tiny-large zero-shot") and result_of["items"] < 36
        for name, result_of in races.items()
        if name.startswith("tiny-large few-shot")
    )
    calls = len(fake.calls)
    assert run(asking, out=out).decision.winner == result.decision.winner and len(fake.calls) == calls


@pytest.mark.no_cover  # what it runs, others cover
def test_an_effort_that_the_server_refuses_is_said_and_not_exported(fake: Fake, tmp_path: Path) -> None:
    fake.refusing = lambda body: "no such parameter: reasoning_effort" if "reasoning_effort" in body else None
    efforts = [asked(fake, styles=["few-shot"], reasoning_effort=["minimal", "high"])]
    out = tmp_path / "study"
    result = run(task(goods(tmp_path, 60), fake, models=efforts, search={"calls": 0}), out=out)
    caveats = " ".join(result.document["caveats"])
    assert "refused one of the efforts minimal, high" in caveats
    assert "takes no reasoning_effort" not in caveats
    assert "parameters" not in json.loads((out / "prompt.json").read_text())


@pytest.mark.no_cover  # what it runs, others cover
def test_one_effort_that_the_server_refuses_ends_its_options_alone(fake: Fake, tmp_path: Path) -> None:
    words = "Unsupported value: 'reasoning_effort' does not support 'minimal' with this model."
    fake.refusing = lambda body: words if body.get("reasoning_effort") == "minimal" else None
    efforts = [asked(fake, reasoning_effort=["minimal", "low", "high"])]
    result = run(
        task(goods(tmp_path, 150), fake, models=efforts, search={"calls": 0}), out=tmp_path / "study"
    )
    asked_with = {call.get("reasoning_effort") for call in fake.calls}
    assert asked_with == {"minimal", "low", "high"}
    assert all("minimal" not in finalist.title for finalist in result.decision.finalists)
    caveats = " ".join(result.document["caveats"])
    assert "the server does not take reasoning_effort = 'minimal'" in caveats
    assert "refused one of the efforts" not in caveats


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "openai/x", "reasoning_effort": ["low", "low"]}, "name each effort once"),
        ({"name": "openai/x", "reasoning_effort": []}, "name each effort once"),
        ({"name": "embedded:smollm2-135m", "reasoning_effort": ["low"]}, "runs on this machine"),
    ],
)
def test_efforts_that_make_no_options_are_refused(model: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        Task.parse({"name": "t", "models": [model]})


def test_the_instruction_is_optimised_and_exported(fake: Fake, tmp_path: Path) -> None:
    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        """Forgets the size, unless the instruction says when it stands last."""
        text = "\n".join(turn["content"] for turn in messages)
        if "write a new instruction" in text:
            return "```\nExtract brand and size. The size stands last.\n```"
        brand, size = re.findall(r"(\w+) box of (\d+)", text)[-1]
        return json.dumps({"brand": brand, "size": size} if "stands last" in text else {"brand": brand})

    fake.answer = answer
    out = tmp_path / "study"
    asking = task(goods(tmp_path), fake, search={"calls": 150})
    result = run(asking, out=out)
    assert "optimised" in result.decision.winner
    manifest = json.loads((out / "manifest.json").read_text())
    assert "stands last" in manifest["search"]["instruction"] and manifest["search"]["proposals"] >= 1
    signal = next(signal for signal in result.document["signals"] if signal["id"] == "F3")
    assert "one more would gain" in signal["detail"] and "validation set" in signal["detail"]
    # The exported prompt gives the same score with nothing but a client of the server.
    exported = json.loads((out / "prompt.json").read_text())
    assert "stands last" in (out / "prompt.txt").read_text() and "optimised" in exported["arm"]
    dev = {example.id: example for example in prepare(asking, 0).split.dev}
    scores = []
    with openai.OpenAI(base_url=fake.url, api_key="none") as client:
        for example in dev.values():
            turns: Any = [
                {**turn, "content": turn["content"].replace("{input}", example.input)}
                for turn in exported["messages"]
            ]
            reply = client.chat.completions.create(model="tiny", messages=turns).choices[0].message.content
            scores.append(json_fields(str(reply), example))
    assert np.mean(scores) == exported["dev_score"] == 1.0


def test_a_larger_budget_searches_more_than_once_and_says_where_each_ended(
    fake: Fake, tmp_path: Path
) -> None:
    seen: list[int] = []

    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        """The test before has luck with its second proposal, and then the second search."""
        text = "\n".join(turn["content"] for turn in messages)
        if "write a new instruction" in text:
            seen.append(1)
            last = "stands last" if len(seen) == 2 or 7 < len(seen) < 12 else f"is {len(seen)}"
            return f"```\nExtract brand and size. The size {last}.\n```"
        brand, size = re.findall(r"(\w+) box of (\d+)", text)[-1]
        return json.dumps({"brand": brand, "size": size} if "stands last" in text else {"brand": brand})

    fake.answer = answer
    models = [asked(fake, styles=["zero-shot"])]
    out = tmp_path / "study"
    result = run(task(goods(tmp_path), fake, models=models, search={"calls": 400}), out=out)
    recorded = json.loads((out / "manifest.json").read_text())["search"]
    assert len(recorded["ends"]) == 3 and max(recorded["ends"]) > min(recorded["ends"])
    assert "stands last" in recorded["instruction"] and not recorded["kept"]
    signal = next(signal for signal in result.document["signals"] if signal["id"] == "F3")
    assert "; 3 searches ended at " in signal["detail"]


def test_a_prompt_with_nothing_to_gain_is_not_searched(fake: Fake, tmp_path: Path) -> None:
    fake.answer = lambda messages, body: json.dumps(
        dict(
            zip(
                ("brand", "size"), re.findall(r"(\w+) box of (\d+)", messages[-1]["content"])[-1], strict=True
            )
        )
    )
    out = tmp_path / "study"
    run(task(goods(tmp_path), fake, search={"calls": 400}), out=out)
    not_run = json.loads((out / "measurements.json").read_text())["not_run"]
    why = next(row["reason"] for row in not_run if row["name"] == "optimised prompt")
    assert why == "the best prompt leaves 0.0% of the validation set to gain, which changes nothing"
    assert not any("write a new instruction" in json.dumps(call["messages"]) for call in fake.calls)


def test_a_search_that_could_gain_little_is_not_paid_for(fake: Fake, tmp_path: Path) -> None:
    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        """Forgets the size of one brand, whatever the instruction says."""
        text = "\n".join(turn["content"] for turn in messages)
        if "write a new instruction" in text:
            return f"```\nExtract brand and size, attempt {len(fake.calls)}.\n```"
        brand, size = re.findall(r"(\w+) box of (\d+)", text)[-1]
        return json.dumps({"brand": brand} if brand == "Umbra" else {"brand": brand, "size": size})

    fake.answer = answer
    out = tmp_path / "study"
    models = [asked(fake, styles=["zero-shot", "system message"])]
    result = run(task(goods(tmp_path, 240), fake, models=models, search={"calls": 400}), out=out)
    manifest = json.loads((out / "manifest.json").read_text())
    tested = manifest["headroom"]
    assert "search" not in manifest and tested["cured"] == 0 and tested["asked"] == 3 * tested["tried"]
    not_run = json.loads((out / "measurements.json").read_text())["not_run"]
    why = next(row["reason"] for row in not_run if row["name"] == "optimised prompt")
    assert f"3 new instructions cured 0 of {tested['tried']} failures" in why
    signal = next(signal for signal in result.document["signals"] if signal["id"] == "F3")
    assert signal["value"] == pytest.approx(tested["most"], abs=1e-4)
    assert f"on {tested['tried']} failures, a search would gain" in signal["detail"]
    calls = len(fake.calls)
    again = run(task(goods(tmp_path, 240), fake, models=models, search={"calls": 400}), out=out)
    assert len(fake.calls) == calls and again.document["signals"] == result.document["signals"]


@pytest.mark.parametrize(
    ("calls", "dev", "searches"), [(400, 146, 1), (400, 18, 3), (996, 146, 2), (9_999, 146, 3), (1, 5, 1)]
)
def test_each_search_has_room_for_three_instructions(calls: int, dev: int, searches: int) -> None:
    assert searches_of(calls, dev) == searches


@pytest.mark.no_cover  # what it runs, others cover
def test_what_runs_today_is_an_arm_from_its_log(fake: Fake, tmp_path: Path) -> None:
    folder = goods(tmp_path)
    rows = [json.loads(line) for line in (folder / "goods.jsonl").read_text().splitlines()]
    logged = [
        {"input": row["text"], "output": json.dumps(row["label"]), "input_tokens": 100, "output_tokens": 10}
        for row in rows
    ]
    (folder / "logs").mkdir()
    (folder / "logs" / "today.jsonl").write_text(
        "".join(json.dumps(row | {"seconds": 0.5}) + "\n" for row in logged)
    )
    models = [
        asked(fake),
        {"name": "recorded:logs/today.jsonl", "price": {"input": 0.1, "output": 0.4}},
    ]
    asking = task(folder, fake, models=models, limits={"margin": 0.1})  # 36 items show no less
    result = run(asking, out=tmp_path / "study")
    today = next(f for f in result.document["finalists"] if f["kind"] == "incumbent")
    assert today["arm"] == "today" and today["score"]["estimate"] == 1.0 and today["p50_seconds"] == 0.5
    assert today["cost_per_query_usd"]["likely"] == pytest.approx((100 * 0.1 + 10 * 0.4) / 1e6)
    assert today["upfront_usd"]["high"] == 0.0
    assert result.decision.verdict == "keep" and result.decision.winner == "today"
    calls = len(fake.calls)
    (folder / "logs" / "today.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged[:30]))
    with pytest.raises(StudyError, match="log of what runs today"):
        run(asking, out=tmp_path / "study")
    (tmp_path / "fresh").mkdir()
    shutil.copy(tmp_path / "study" / "calls.sqlite", tmp_path / "fresh")
    thin = run(asking, out=tmp_path / "fresh")
    assert len(fake.calls) - calls < 0.1 * calls  # the recording came along; one more finalist was asked
    assert "incumbent" not in {f["kind"] for f in thin.document["finalists"]}
    not_run = json.loads((tmp_path / "fresh" / "measurements.json").read_text())["not_run"]
    assert "its log answers" in next(row["reason"] for row in not_run if row["name"] == "today")


@pytest.mark.no_cover  # what it runs, others cover
def test_a_recorded_study_replays_with_no_server(tmp_path: Path) -> None:
    folder = goods(tmp_path, 60)
    with serving(Fake(extract)) as fake:
        asking = task(folder, fake)
        first = run(asking, out=tmp_path / "study")
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "study" / "calls.sqlite", tmp_path / "again")
    again = run(asking, out=tmp_path / "again", replay=True)
    for finalist, replayed in zip(first.document["finalists"], again.document["finalists"], strict=True):
        assert finalist == replayed
    with pytest.raises(ModelError, match="calls are not in"):
        run(asking, out=tmp_path / "empty", replay=True)


def test_doctor_finds_keys_and_servers(fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for provider in PROVIDERS.values():
        if provider.key:
            monkeypatch.delenv(provider.key, raising=False)
    port = int(fake.url.split(":")[2].split("/")[0])
    findings = {finding.name: finding for finding in diagnose([port])}
    assert findings[f"{fake.url}#tiny"].ok and "answers in" in findings[f"{fake.url}#tiny"].detail
    assert findings["openai"].detail == "OPENAI_API_KEY is not set" and not findings["openai"].needed
    monkeypatch.setitem(PROVIDERS, "openai", Provider(fake.url, "OPENAI_API_KEY"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fake.key = KEY
    assert {f.name: f for f in diagnose([])}["openai"].detail.endswith("2 models, such as openai/tiny")
    fake.key = "another"
    refused = {f.name: f for f in diagnose([])}["openai"]
    assert not refused.ok and "the key was refused" in refused.detail and KEY not in refused.detail
    fake.always = "500"
    fake.key = None
    assert not {f.name: f for f in diagnose([port])}[f"{fake.url}#tiny"].ok


def test_models_are_called_by_what_tells_them_apart() -> None:
    given = ["openai/gpt-5-mini", "http://127.0.0.1:8000/v1#org/tiny", "local:models/small", "local:one"]
    assert short_names(given) == ["gpt-5-mini", "tiny", "small", "one"]
    assert short_names(["openai/x", "groq/x"]) == ["openai/x", "groq/x"]


@dataclass
class Skilled:
    """Stands for an arm that gets the same score on every item."""

    name: str
    skill: float


def raced(skills: Sequence[float], standing: Standing | None = None) -> tuple[Any, list[Any], dict[str, int]]:
    """The winner of a race over 150 items, how far the arms came, and how many items each answered."""
    log: dict[str, list[Trial]] = {}

    def measure(running: Any, items: Any) -> None:
        for arm in running:
            have = {trial.item for trial in log.setdefault(arm.name, [])}
            fresh = [item for item in items if item.id not in have]
            log[arm.name] += [Trial(arm=arm.name, item=item.id, score=arm.skill) for item in fresh]

    arms: Any = [Skilled(f"arm {i}", skill) for i, skill in enumerate(skills)]
    dev = [Example(str(i), "x", "y") for i in range(150)]
    winner, places = race(arms, dev, measure, lambda name: log[name], {}, standing=standing)
    return winner, places, {name: len(trials) for name, trials in log.items()}


def test_a_race_ends_for_what_is_far_behind_the_best_of_another_family() -> None:
    graded = [Trial(arm="zero-shot", item=str(i), score=0.9) for i in range(140)]  # ten got no grade
    best = Standing("zero-shot", graded)
    winner, places, answered = raced([0.1, 0.3], best)
    assert winner is None and {place.stopped_by for place in places} <= {"zero-shot", "arm 1"}
    assert places[1].stopped_by == "zero-shot" and sum(answered.values()) < 80
    alone, (place,), answered = raced([0.1], best)
    assert alone is None and place.stopped_by == "zero-shot" and answered == {"arm 0": place.items}
    near, (place,), answered = raced([0.85], best)
    assert near.name == "arm 0" and place.stopped_by is None and answered == {"arm 0": 150}


def test_races_stop_the_hopeless_early() -> None:
    assert look_sizes(50) == [16, 20, 25, 31, 39, 49, 50] and look_sizes(10) == [10]
    winner, places, answered = raced([i / 10 for i in range(10)])
    assert winner is not None and winner.name == "arm 9" and answered["arm 9"] == 150
    assert answered["arm 0"] == 16 and places[0].stopped_by == "arm 9" and places[9].stopped_by is None
    assert answered["arm 0"] <= answered["arm 5"] <= answered["arm 8"] < 150 and sum(answered.values()) < 600


def test_a_race_ends_for_an_arm_whose_answers_cannot_be_read() -> None:
    dev = [Example(str(i), "x", "y") for i in range(60)]

    def unreadable(share: float, count: int) -> str | None:
        trials = [
            Trial(arm="a", item=str(i), score=0.0, format_ok=i >= share * count, answer=f"reply {i}")
            for i in range(count)
        ]
        return unreadable_reply(trials, dev[:count])

    assert unreadable(1.0, 16) == "reply 0" and unreadable(1.0, 15) is None
    assert unreadable(0.9, 20) is None and unreadable(0.55, 32) == "reply 0" and unreadable(0.5, 32) is None


def test_a_prompt_whose_answers_cannot_be_read_costs_few_calls_and_is_named(
    fake: Fake, tmp_path: Path
) -> None:
    def answer(messages: list[dict[str, str]], body: dict[str, Any]) -> str:
        text = "\n".join(message["content"] for message in messages)
        return "Certainly! Let me look into that." if "step by step" in text else extract(messages, body)

    fake.answer = answer
    out = tmp_path / "study"
    alone = [asked(fake, styles=["few-shot", "chain of thought"])]
    with pytest.raises(StudyError, match=r"one option is left.*as in 'Certainly! Let me look into that"):
        run(task(goods(tmp_path), fake, models=alone, search={"calls": 0}), out=tmp_path / "alone")
    fake.calls.clear()
    models = [asked(fake, styles=[*TWO_STYLES, "chain of thought"])]
    result = run(task(goods(tmp_path), fake, models=models, search={"calls": 0}), out=out)
    races = json.loads((out / "manifest.json").read_text())["races"]
    stopped = {name: race for name, race in races.items() if race.get("unreadable")}
    assert len(stopped) == 5 and all("chain of thought" in name for name in stopped)
    assert {race["items"] for race in stopped.values()} == {16}
    named = [caveat for caveat in result.decision.caveats if "could not be read, as in 'Certainly!" in caveat]
    assert len(named) == 5
    assert "stopped: its answers cannot be read" in Path(str(result.report)).read_text()
    reasoned = sum("step by step" in str(body["messages"]) for body in fake.calls)
    assert reasoned <= 5 * 16 * 2  # each of five templates, and its repair
    calls = len(fake.calls)
    again = run(task(goods(tmp_path), fake, models=models, search={"calls": 0}), out=out)
    assert again.document["finalists"] == result.document["finalists"]
    kept = json.loads((out / "manifest.json").read_text())["races"]
    # whoever opens a finished study makes no call, and the stopped ones stay stopped
    assert len(fake.calls) == calls and kept == races
    with open_finalists(out):
        assert len(fake.calls) == calls

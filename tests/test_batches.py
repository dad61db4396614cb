"""Calls by batch: a study asked so, killed and resumed, and everything that a provider does to a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from anthropic_server import KEY as ANTHROPIC_KEY
from anthropic_server import FakeAnthropic
from batch_servers import Batched, serving_anthropic_batches, serving_openai_batches
from servers import KEY, Fake, echo
from test_chat_study import extract, goods
from typer.testing import CliRunner

from tunepoint import Task, read_trials, run
from tunepoint.cli.app import app
from tunepoint.errors import BudgetReached, ModelError, StudyError, TaskError
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.abilities import Abilities
from tunepoint.models.batch.endpoint import AT_ONCE, BatchedEndpoint
from tunepoint.models.batch.gathering import Batches
from tunepoint.models.batch.log import BATCHES, BatchLog
from tunepoint.models.batch.terms import batch_discount, known_terms
from tunepoint.models.budget import Budget, BudgetedEndpoint
from tunepoint.models.chat import Message, Usage
from tunepoint.models.endpoints import Completion, Request, allow_all
from tunepoint.models.named_models import NamedModel, open_hosted
from tunepoint.models.payments import PaymentLog
from tunepoint.models.prices import call_price
from tunepoint.models.providers import PROVIDERS, Provider
from tunepoint.models.recording import CallRecording, RecordedEndpoint
from tunepoint.study.whatif import Scenario, what_if
from tunepoint.trials.trial import Trial

pytestmark = pytest.mark.usefixtures("chat_alone")

OPENAI, ANTHROPIC = "openai/tiny", "anthropic/claude-test-1"
PRICE = TokenPrice(input=1, output=4)
LABELLED = Abilities(schema=False, logprobs=False)


@pytest.fixture
def held() -> Batched:
    return Batched()


@pytest.fixture
def openai_server(held: Batched, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with serving_openai_batches(Fake(echo), held) as fake:
        monkeypatch.setitem(PROVIDERS, "openai", Provider(fake.url, "OPENAI_API_KEY"))
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield fake


@pytest.fixture
def anthropic_server(held: Batched, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAnthropic]:
    with serving_anthropic_batches(FakeAnthropic(str), held) as fake:
        monkeypatch.setenv("ANTHROPIC_API_KEY", ANTHROPIC_KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", fake.url)
        yield fake


def requests(count: int) -> list[Request]:
    return [Request((Message("user", f"word {i}"),)) for i in range(count)]


@dataclass
class Asking:
    """One run of a process: an endpoint by batch with its log and its payments."""

    folder: Path
    name: str = OPENAI
    cap_usd: float | None = None
    sleep: Callable[[float], None] = lambda seconds: None
    abilities: Abilities | None = LABELLED
    submits: bool = True
    forgotten: Sequence[Request] = ()
    said: list[str] = field(default_factory=list)
    usd: float = 0.0

    def __call__(self, asked: Sequence[Request]) -> dict[int, Completion]:
        completions: dict[int, Completion] = {}
        with ExitStack() as stack:
            payments = stack.enter_context(closing(PaymentLog(self.folder / "payments.jsonl")))
            budget = Budget(self.cap_usd, 0.0, payments.usd, payments)
            batches = Batches(BatchLog(self.folder / BATCHES), budget, sleep=self.sleep)
            batches.announce = self.said.append
            hosted = open_hosted(NamedModel(self.name), self.abilities)
            stack.callback(hosted.close)
            jobs = hosted.wire.batches()
            stack.callback(jobs.close)
            price = call_price(self.name, PRICE)
            direct = BudgetedEndpoint(hosted, budget, price)
            terms = known_terms()[0]
            endpoint = BatchedEndpoint(batches, direct, hosted, jobs, terms, price, submits=self.submits)
            endpoint.forget([request.key(self.name) for request in self.forgotten])
            try:
                endpoint.complete(asked, completions.__setitem__, allow_all)
            finally:
                self.usd = budget.spent_usd
        return completions


def texts(completions: dict[int, Completion]) -> list[str]:
    return [completions[i].text for i in range(len(completions))]


WORDS = [f"word {i}" for i in range(40)]


# -- one batch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [OPENAI, ANTHROPIC])
def test_many_requests_go_in_one_batch_at_half_the_price(
    name: str, held: Batched, openai_server: Fake, anthropic_server: FakeAnthropic, tmp_path: Path
) -> None:
    asking = Asking(tmp_path, name)
    completions = asking(requests(40))
    assert texts(completions) == WORDS and len(held.batches) == 1
    assert not openai_server.calls and not anthropic_server.calls
    usages = [completion.usage for completion in completions.values()]
    assert all(usage.batched and usage.seconds is None for usage in usages)
    price = call_price(name, PRICE)
    assert price is not None and batch_discount(name) == 0.5
    at_once = sum(map(price.dollars, usages))
    assert asking.usd == pytest.approx(at_once / 2)
    assert "waiting for 1 batch: 0 of 40 calls" in asking.said[0]


def test_few_requests_are_asked_at_once(held: Batched, openai_server: Fake, tmp_path: Path) -> None:
    completions = Asking(tmp_path)(requests(AT_ONCE))
    assert texts(completions) == WORDS[:AT_ONCE] and not held.batches
    assert len(openai_server.calls) == AT_ONCE and not completions[0].usage.batched


def test_the_first_request_shows_what_the_server_refuses(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    openai_server.refusing = lambda body: "temperature is not supported" if "temperature" in body else None
    Asking(tmp_path, abilities=None)(requests(40))
    assert len(openai_server.calls) == 2 and len(held.batches[0]["rows"]) == 39
    assert all("temperature" not in row["body"] for row in held.batches[0]["rows"])


# -- what goes wrong ------------------------------------------------------------------------------


def interrupted(seconds: float) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("lost", [False, True], ids=["id known", "id lost"])
def test_the_next_run_takes_the_batch_of_a_killed_one(
    name: str,
    lost: bool,
    held: Batched,
    openai_server: Fake,
    anthropic_server: FakeAnthropic,
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Asking(tmp_path, name, sleep=interrupted)(requests(40))
    whole = Asking(tmp_path / "other", name)
    whole.folder.mkdir()
    whole(requests(40))
    held.batches.pop()
    log = tmp_path / BATCHES
    if lost:
        log.write_text(log.read_text().splitlines()[0] + "\n")
    resumed = Asking(tmp_path, name)
    assert texts(resumed(requests(40))) == WORDS
    assert len(held.batches) == 1
    assert resumed.usd == pytest.approx(whole.usd)  # what was set aside for the killed run is given back
    again = Asking(tmp_path, name)
    assert texts(again(requests(40))) == WORDS and again.usd == pytest.approx(whole.usd)


def test_a_run_without_batch_takes_what_is_under_way_and_submits_nothing(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Asking(tmp_path, sleep=interrupted)(requests(40))
    resumed = Asking(tmp_path, submits=False)
    completions = resumed(requests(80))
    assert texts(completions) == [f"word {i}" for i in range(80)] and len(held.batches) == 1
    assert len(openai_server.calls) == 40 and completions[0].usage.batched


def test_a_kill_in_the_second_batch_submits_no_third(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    held.expire = {0: 5}

    def killed_in_the_second(seconds: float) -> None:
        if len(held.batches) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Asking(tmp_path, sleep=killed_in_the_second)(requests(40))
    assert texts(Asking(tmp_path)(requests(40))) == WORDS
    assert [len(batch["rows"]) for batch in held.batches] == [40, 35]


def test_what_is_asked_once_more_takes_no_answer_of_an_old_batch(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    Asking(tmp_path)(requests(40))
    fresh = requests(40)[:20]
    assert texts(Asking(tmp_path, forgotten=fresh)(fresh)) == WORDS[:20]
    assert [len(batch["rows"]) for batch in held.batches] == [40, 20]


def test_answers_with_line_separators_in_them_are_read(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    openai_server.answer = lambda messages, body: "a\u2028b\u0085c"
    held.raw = True
    assert set(texts(Asking(tmp_path)(requests(40)))) == {"a\u2028b\u0085c"}


def test_a_batch_that_the_provider_no_longer_keeps_is_asked_anew(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Asking(tmp_path, sleep=interrupted)(requests(40))
    held.gone = {"batch_0"}
    assert texts(Asking(tmp_path)(requests(40))) == WORDS and len(held.batches) == 2


def test_a_refused_key_while_waiting_says_that_the_batch_goes_on(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Asking(tmp_path, sleep=interrupted)(requests(40))
    held.locked = True
    with pytest.raises(ModelError, match="Batch batch_0 goes on at the provider and is paid for"):
        Asking(tmp_path)(requests(40))
    held.locked = False
    assert texts(Asking(tmp_path)(requests(40))) == WORDS and len(held.batches) == 1


def test_what_a_cap_leaves_of_a_batch_is_asked_at_once_if_it_is_little(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    price = call_price(OPENAI, PRICE)
    assert price is not None
    most = price.max_dollars(requests(1)[0])
    assert texts(Asking(tmp_path, cap_usd=2.5 * most)(requests(40))) == WORDS
    assert not held.batches and len(openai_server.calls) == 40


def test_a_batch_that_was_never_submitted_is_submitted(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    line = {"batch": 0, "model": OPENAI, "mark": "m", "at": 0.0}
    calls = {request.key(OPENAI): 0 for request in requests(40)}
    (tmp_path / BATCHES).write_text(json.dumps({**line, "calls": calls}) + "\n" + '{"batch": 0, "i')
    assert texts(Asking(tmp_path)(requests(40))) == WORDS
    assert len(held.batches) == 1 and held.batches[0]["metadata"]["tunepoint"] != "m"


@pytest.mark.parametrize("name", [OPENAI, ANTHROPIC])
def test_a_batch_whose_creation_had_no_answer_is_not_submitted_twice(
    name: str, held: Batched, openai_server: Fake, anthropic_server: FakeAnthropic, tmp_path: Path
) -> None:
    held.lose = {0}
    assert texts(Asking(tmp_path, name)(requests(40))) == WORDS
    assert len(held.batches) == 1


@pytest.mark.parametrize("name", [OPENAI, ANTHROPIC])
def test_what_expires_is_asked_in_a_second_batch_and_then_at_once(
    name: str, held: Batched, openai_server: Fake, anthropic_server: FakeAnthropic, tmp_path: Path
) -> None:
    held.expire = {0: 5, 1: 10}
    completions = Asking(tmp_path, name)(requests(40))
    assert texts(completions) == WORDS
    assert [len(batch["rows"]) for batch in held.batches] == [40, 35]
    assert sum(completion.usage.batched for completion in completions.values()) == 15
    assert len(openai_server.calls) + len(anthropic_server.calls) == 25


def test_a_refused_request_is_asked_at_once_which_says_why(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    bad = requests(40)[7]
    held.failing = {bad.key(OPENAI)}
    openai_server.refusing = lambda body: (
        "too strange" if body["messages"][0]["content"] == "word 7" else None
    )
    completions = Asking(tmp_path)(requests(40))
    assert len(openai_server.calls) == 1 and len(held.batches) == 1
    assert completions[7].error is not None and "too strange" in completions[7].error
    assert [i for i in completions if completions[i].error] == [7]


def test_a_refused_batch_stops_with_the_words_and_costs_nothing(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    held.refuse = {0: "The model tiny cannot be used in batches"}
    asking = Asking(tmp_path)
    with pytest.raises(ModelError, match=r"cannot be used in batches.*run again without batch"):
        asking(requests(40))
    assert asking.usd == 0
    assert texts(Asking(tmp_path)(requests(40))) == WORDS and len(held.batches) == 2


def test_a_call_that_is_refused_is_not_tried_again(
    held: Batched, anthropic_server: FakeAnthropic, tmp_path: Path
) -> None:
    held.refuse = {0: "batches are not enabled"}
    asking = Asking(tmp_path, ANTHROPIC)
    with pytest.raises(ModelError, match=r"the batch was refused: .*batches are not enabled"):
        asking(requests(40))
    assert asking.usd == 0 and not held.batches


def test_a_full_queue_gets_smaller_batches_one_after_the_other(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    held.most_requests = 10
    assert texts(Asking(tmp_path)(requests(80))) == [f"word {i}" for i in range(80)]
    sizes = [len(batch["rows"]) for batch in held.batches]
    assert sizes == [80, 40, 20, 10, 10, 10, 10, 10, 10, 10][: len(sizes)]
    assert sum(size for size in sizes if size <= 10) + len(openai_server.calls) == 80


def test_a_cap_submits_what_it_pays_for(held: Batched, openai_server: Fake, tmp_path: Path) -> None:
    price = call_price(OPENAI, PRICE)
    assert price is not None
    most = price.in_batch(price.max_dollars(requests(1)[0]))
    asking = Asking(tmp_path, cap_usd=20.5 * most)
    assert texts(asking(requests(40))) == WORDS  # the first 20 cost less than the most, which pays for others
    assert len(held.batches[0]["rows"]) == 20 and asking.usd < 20.5 * most
    with pytest.raises(BudgetReached):
        Asking(tmp_path, cap_usd=1.001 * asking.usd)(
            [Request((Message("user", f"w {i}"),)) for i in range(40)]
        )


def test_a_log_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / BATCHES).write_text('{"batch": 3, "id": "x"}\n')
    with pytest.raises(StudyError, match=r"batches.jsonl:1: is no batch"):
        BatchLog(tmp_path / BATCHES)


# -- gathering ------------------------------------------------------------------------------------


def test_the_requests_of_many_steps_go_out_together(
    held: Batched, openai_server: Fake, tmp_path: Path
) -> None:
    batches = Batches(BatchLog(tmp_path / BATCHES), Budget(None, 0.0), sleep=lambda seconds: None)
    hosted = open_hosted(NamedModel(OPENAI), LABELLED)
    jobs = hosted.wire.batches()
    batched = BatchedEndpoint(batches, hosted, hosted, jobs, known_terms()[0], None)
    recording = CallRecording(tmp_path / "calls.sqlite")
    endpoint = RecordedEndpoint(OPENAI, recording, batched)  # which remembers the answers to the first turn
    seen: dict[str, list[str]] = {}

    def chain(name: str) -> None:
        """Two questions, of which the second holds the answers to the first."""
        answers: list[str] = []
        for turn in range(2):
            completions: dict[int, Completion] = {}
            asked = [Request((Message("user", f"{name} {turn} {i} {answers}"),)) for i in range(20)]
            endpoint.complete(asked, completions.__setitem__, allow_all)
            answers = texts(completions)[:1]
        seen[name] = answers

    batches.gather([lambda name=name: chain(name) for name in ("a", "b", "c")])  # type: ignore[misc]
    assert seen == {name: [f"{name} 1 0 ['{name} 0 0 []']"] for name in "abc"}
    assert [len(batch["rows"]) for batch in held.batches] == [60, 60]
    for opened in (recording, hosted, jobs):
        opened.close()


# -- a study --------------------------------------------------------------------------------------


def study_task(folder: Path, **more: Any) -> Task:
    model = {"name": OPENAI, "price": {"input": 1, "output": 4}, "styles": ["zero-shot", "few-shot"]}
    content = {
        "name": "goods",
        "instruction": "Extract brand and size.",
        "data": {"path": "goods.jsonl", "input": "text", "target": "label"},
        "answer": {"kind": "json"},
        "score": {"metric": "json_fields"},
        "search": {"calls": 0},
        "models": [{**model, **more}],
    }
    return Task.parse(content, folder=folder)


def scored(folder: Path) -> set[tuple[str, str, float]]:
    return {(trial.arm, trial.item, trial.score) for trial in read_trials(folder / "trials.jsonl")}


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tunepoint.study.run.Batches", lambda log, budget: Batches(log, budget, sleep=lambda s: None)
    )


def test_a_study_by_batch_says_what_one_at_once_says(
    held: Batched, openai_server: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    openai_server.answer = extract
    task, quotes = study_task(goods(tmp_path, 240)), list[Any]()
    run(task, out=tmp_path / "once", confirm=quotes.append)
    at_once = len(openai_server.calls)
    openai_server.calls.clear()
    result = run(task.asking_by_batch(), out=tmp_path / "batched", confirm=quotes.append)
    assert scored(tmp_path / "once") == scored(tmp_path / "batched")
    assert len(openai_server.calls) < at_once / 2
    batched = sum(len(batch["rows"]) for batch in held.batches)
    quoted = quotes[1].by_batch
    assert 0.4 * at_once < batched and quoted is not None and len(held.batches) <= quoted.waits + 2
    trials: list[Trial] = list(read_trials(tmp_path / "batched" / "trials.jsonl"))
    timed = [trial for trial in trials if trial.seconds is not None]
    assert 32 <= len([trial for trial in timed if trial.arm == trials[0].arm]) < 60
    assert result.decision.finalist(result.decision.winner).p95_seconds is not None
    assert any("calls went by batch" in caveat for caveat in result.decision.caveats)
    assert f"({batched:,} by batch)" in result.notes[0]

    def cost(out: str) -> float:
        return sum(trial.cost_usd or 0 for trial in read_trials(tmp_path / out / "trials.jsonl"))

    # the verdict counts on the price of answers at once, which production pays
    assert cost("batched") == pytest.approx(cost("once"))
    manifests = [json.loads((tmp_path / out / "manifest.json").read_text()) for out in ("once", "batched")]
    assert manifests[1]["calls_usd"] < 0.8 * manifests[0]["calls_usd"]
    assert not quotes[0].goes_by_batch and "with --batch $" in quotes[0].line()
    assert quotes[1].goes_by_batch and "asked at once $" in quotes[1].line()
    assert quotes[1].planned_usd.likely < quotes[0].planned_usd.likely
    # traffic that can wait is cheaper, without another call
    waiting = what_if(tmp_path / "batched", Scenario({"traffic.batch_share": 0.5}))
    dollars = [
        decision.finalist(result.decision.winner).cost_per_query_usd.likely
        for decision in (waiting.before, waiting.after)
    ]
    assert dollars[1] == pytest.approx(0.75 * dollars[0])
    # whoever asks once more pays for nothing
    calls, batches = len(openai_server.calls), len(held.batches)
    run(task, out=tmp_path / "batched")
    assert (len(openai_server.calls), len(held.batches)) == (calls, batches)


def test_a_study_killed_in_a_batch_goes_on_with_it(
    held: Batched, openai_server: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openai_server.answer = extract
    task = study_task(goods(tmp_path, 240), batch=True)
    with monkeypatch.context() as killed:
        make = lambda log, budget: Batches(log, budget, sleep=interrupted)  # noqa: E731
        killed.setattr("tunepoint.study.run.Batches", make)
        with pytest.raises(KeyboardInterrupt):
            run(task, out=tmp_path / "study")
    assert len(held.batches) == 1
    quick(monkeypatch)
    run(task, out=tmp_path / "study")
    manifest = json.loads((tmp_path / "study" / "manifest.json").read_text())
    rows = [row["custom_id"] for batch in held.batches for row in batch["rows"]]
    assert len(rows) == len(set(rows))  # nothing was asked twice
    usages = sum(trial.cost_usd or 0 for trial in read_trials(tmp_path / "study" / "trials.jsonl"))
    assert manifest["calls_usd"] > 0 and usages > 0
    with closing(PaymentLog(tmp_path / "study" / "payments.jsonl")) as payments:
        assert payments.usd == pytest.approx(manifest["calls_usd"], rel=1e-6)


def test_batch_needs_a_provider_that_has_it(tmp_path: Path) -> None:
    with pytest.raises(
        TaskError, match="batch: no batch API is known for groq/llama; known are those of openai/"
    ):
        study_task(tmp_path, name="groq/llama", batch=True)
    with pytest.raises(TaskError, match="no model of this task can be asked by batch"):
        study_task(tmp_path, name="groq/llama").asking_by_batch()
    result = CliRunner().invoke(app, ["quote", "--batch", str(_written(tmp_path, "groq/llama"))])
    assert result.exit_code == 2 and "known are those of openai/*, anthropic/*" in result.output


def _written(folder: Path, model: str, more: str = "") -> Path:
    goods(folder, 240)
    (folder / "task.toml").write_text(
        f"""name = "goods"
instruction = "Extract brand and size."
data = {{ path = "goods.jsonl", input = "text", target = "label" }}
answer = {{ kind = "json" }}
score = {{ metric = "json_fields" }}
models = [{{ name = "{model}", price = {{ input = 1, output = 4 }}, styles = ["zero-shot", "few-shot"] }}]
{more}"""
    )
    return folder / "task.toml"


def test_run_by_batch_from_the_command_line(
    held: Batched, openai_server: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    monkeypatch.chdir(tmp_path)
    openai_server.answer = extract
    path = _written(tmp_path, OPENAI, "search = { calls = 0 }\n")
    words = ["run", str(path), "--batch", "--out", str(tmp_path / "study")]
    refused = CliRunner().invoke(app, words)  # with no terminal to ask at
    assert refused.exit_code == 2 and not held.batches and not openai_server.calls
    assert "waits for a batch" in refused.stderr and "Add --yes" in refused.stderr
    result = CliRunner().invoke(app, [*words, "--yes", "--progress", "json"])
    assert result.exit_code == 0, result.output
    assert held.batches and "by batch)" in result.stderr and "Report: " in result.stdout
    told = [json.loads(line)["what"] for line in result.stderr.splitlines() if line.startswith("{")]
    assert told


def test_the_quote_shows_both_prices(tmp_path: Path) -> None:
    path = _written(tmp_path, OPENAI)
    at_once, batched = (
        CliRunner().invoke(app, ["quote", *more, str(path)]).output for more in ([], ["--batch"])
    )
    assert (
        "; with --batch $" in at_once and "waits for a batch (minutes as a rule, 24 hours at most" in at_once
    )
    assert "; asked at once $" in batched


def test_batches_leave_a_study_what_it_is(tmp_path: Path) -> None:
    goods(tmp_path)
    assert study_task(tmp_path).trials_fingerprint() == study_task(tmp_path, batch=True).trials_fingerprint()
    usage = Usage("m") + Usage("m", batched=True)
    assert usage.batched and usage.calls == 2

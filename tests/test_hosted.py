"""Hosted fine-tuning: a real client against a fake provider with real faults."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from providers import FakeProvider, providing

from tunepoint.arms.contract import Arm
from tunepoint.arms.hosted.hosted import FittedHosted, HostedTuned, chat_model
from tunepoint.arms.hosted.job_state import JobState
from tunepoint.arms.hosted.jobs import HostedJob
from tunepoint.arms.hosted.openai_style import OpenAIStyleClient
from tunepoint.arms.hosted.providers import PROVIDERS, TuningProvider, notices
from tunepoint.arms.hosted.quote import HostedQuote, quote
from tunepoint.arms.hosted.rows import tokens_of, validate
from tunepoint.arms.templates import chat_rows
from tunepoint.data.examples import Example
from tunepoint.errors import DataError, ModelError
from tunepoint.models.abilities import Abilities
from tunepoint.models.endpoints import TextModel
from tunepoint.models.openai import OpenAIEndpoint
from tunepoint.models.providers import parse_model_name
from tunepoint.stats.ranges import Range
from tunepoint.task.task import Task

KEY = "sk-a-secret-that-nobody-may-see"
OPENAI, BASE = PROVIDERS["openai"], "gpt-4o-mini-2024-07-18"
TASK = Task.parse(
    {
        "name": "t",
        "instruction": "Route the message.",
        "answer": {"labels": {"billing": "money", "fault": ""}},
    }
)
TRAIN = [Example(f"m.csv:{i}", f"message {i}", ("billing", "fault")[i % 2]) for i in range(12)]

OPENED: list[TextModel] = []


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TUNEPOINT_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("TUNEPOINT_OPENAI_URL", raising=False)
    yield
    while OPENED:
        endpoint = OPENED.pop().endpoint
        assert isinstance(endpoint, OpenAIEndpoint)
        endpoint.close()


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with providing(FakeProvider(KEY)) as running:
        yield running


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def now(self) -> float:
        return sum(self.slept)


def opened(name: str, abilities: Abilities) -> TextModel:
    OPENED.append(chat_model(name, abilities))
    return OPENED[-1]


def tuned(
    fake: FakeProvider, keep: Path, provider: TuningProvider = OPENAI, **changes: object
) -> HostedTuned:
    clock = changes.pop("clock", None) or Clock()
    options = {"url": fake.url, "open": opened, "sleep": clock.sleep, **changes}  # type: ignore[attr-defined]
    return HostedTuned(provider, BASE, keep, **options)  # type: ignore[arg-type]


def fit(arm: HostedTuned, train: list[Example] = TRAIN, seed: int = 0) -> FittedHosted:
    return arm.fit(TASK, train, np.random.default_rng(seed))


def state(keep: Path) -> tuple[Path, JobState]:
    (path,) = keep.glob("*.json")
    job = JobState.read(path)
    assert job is not None
    return path, job


# -- rows, limits, quote ---------------------------------------------------------------------


def test_a_row_holds_what_the_tuned_model_will_be_asked_and_the_target() -> None:
    (row,) = chat_rows(TASK, TRAIN[:1], TRAIN)
    system, user, assistant = row["messages"]
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
    assert "Route the message." in system["content"] and "billing: money" in system["content"]
    assert user["content"] == "Input: message 0" and assistant["content"] == "billing"


def test_rows_that_cannot_be_trained_on_are_named_with_both_quantities() -> None:
    rows, ids = chat_rows(TASK, TRAIN, TRAIN), [example.id for example in TRAIN]
    validate(rows, OPENAI, ids=ids)
    with pytest.raises(DataError, match="9 examples are too few, it trains on at least 10: add 1"):
        validate(rows[:9], OPENAI)
    with pytest.raises(DataError, match="0 examples are too few, it trains on at least 1"):
        validate([], PROVIDERS["own"])
    empty = chat_rows(TASK, [*TRAIN, Example("m.csv:99", "x", " ")], TRAIN)
    with pytest.raises(DataError, match=r"row 13 \(m.csv:99\): the target is empty"):
        validate(empty, OPENAI, ids=[*ids, "m.csv:99"])
    tight = dataclasses.replace(OPENAI, max_example_tokens=tokens_of(rows[0]) - 1)
    with pytest.raises(
        DataError, match=r"row 1: about \d+ tokens \(an estimate: \d+ bytes / 4\).*at most \d+"
    ):
        validate(rows, tight)
    small = dataclasses.replace(OPENAI, max_file_bytes=1_000)
    with pytest.raises(DataError, match=r"12 rows has [\d,]+ bytes, and at most 1,000 are allowed"):
        validate(rows, small)
    with pytest.raises(DataError, match="all 12 rows are the same"):
        validate(rows[:1] * 12, OPENAI)
    with pytest.raises(DataError, match="all 12 rows are answered with 'billing'"):
        validate(chat_rows(TASK, [dataclasses.replace(e, target="billing") for e in TRAIN], TRAIN), OPENAI)


def test_tokens_are_a_quarter_of_the_bytes_rounded_up() -> None:
    assert tokens_of({"messages": [{"content": "aé"}, {"content": "bc"}]}) == 2  # 5 bytes
    assert tokens_of({"messages": [{"content": "abcd"}]}) == 1


def test_the_quote_is_tokens_times_epochs_times_the_price_of_training() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "x" * 30_000},
            {"role": "assistant", "content": "y" * 10_000},
        ]
    }
    estimate = quote([row] * 100, OPENAI, BASE, 3, today=date(2026, 11, 25))
    # 4,000,000 bytes, $3 a million tokens, 3 epochs; 200 messages of 8 tokens around at most
    assert estimate.tokens == 1_000_000
    assert isinstance(estimate.dollars, Range)
    assert dataclasses.astuple(estimate.dollars) == pytest.approx((7.2, 9.0, 18.0144))
    assert estimate.price is not None and estimate.price.output == 1.2
    assert (estimate.hosting, estimate.retires) == ("per token", date(2027, 1, 14))
    assert str(estimate).endswith("about 1,000,000 tokens, 3 epochs: $9.00 ($7.20 to $18.01)")


def test_a_quote_without_a_known_price_says_so() -> None:
    estimate = quote(chat_rows(TASK, TRAIN, TRAIN), PROVIDERS["together"], "meta/llama", 2)
    assert (
        estimate.dollars is None
        and estimate.price is None
        and "no price of training is known" in str(estimate)
    )


# -- providers -------------------------------------------------------------------------------


def test_notices_tell_dates_and_sources_before_and_after() -> None:
    before = notices(OPENAI, date(2026, 11, 25), base=BASE)
    assert before[0].startswith("openai: gpt-4o-mini-2024-07-18 shuts down on 2027-01-14, in 50 days")
    assert "closes to new fine-tuning jobs on 2027-01-06, in 42 days" in before[1]
    assert all("developers.openai.com/api/docs/deprecations" in notice for notice in before)
    after = notices(OPENAI, date(2027, 3, 1), base=BASE)
    assert "was shut down on 2027-01-14" in after[0]
    assert "closed to new fine-tuning jobs on 2027-01-06" in after[1]
    assert "96 days old" in after[-1]
    assert notices(PROVIDERS["together"], date(2026, 11, 26)) == []


def test_every_provider_is_dated_sourced_and_named_by_its_key() -> None:
    for name, provider in PROVIDERS.items():
        assert provider.name == name and provider.source and provider.checked
        assert (provider.closes is None) == (provider.closes_source is None)


def test_names_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="TUNEPOINT_OWN_URL"):
        PROVIDERS["own"].base_url()
    monkeypatch.setenv("TUNEPOINT_OPENAI_URL", "http://proxy/v1/")
    assert OPENAI.base_url() == "http://proxy/v1"
    assert OPENAI.base_url("http://mine/v1") == "http://mine/v1"
    # the provider's key goes to nobody else
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    assert OPENAI.credential("https://proxy/v1") == (KEY, "TUNEPOINT_API_KEY")
    with pytest.raises(ModelError, match="plain http would send TUNEPOINT_API_KEY to proxy unencrypted"):
        OPENAI.credential("http://proxy/v1")
    with pytest.raises(ModelError, match="plain http"):
        OPENAI.credential(" HTTP://proxy/v1")
    assert OPENAI.model_key() == "TUNEPOINT_API_KEY" and PROVIDERS["together"].model_key() is None
    monkeypatch.setenv("TUNEPOINT_OPENAI_URL", "https://api.openai.com/v1/")
    assert OPENAI.model_key() is None  # it is the provider's own address
    for own in PROVIDERS.values():
        if own.key is not None:
            for host in (
                "evil.example",
                "azure.com.evil.example",
                "x.cloudapp.azure.com",
                "ec2-1.amazonaws.com",
            ):
                with pytest.raises(ModelError, match=f"{own.key} is the key of"):
                    parse_model_name(f"https://{host}/v1#m", own.key)
    assert OPENAI.credential("https://api.openai.com/v1") == ("sk-theirs", "OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match="set OPENAI_API_KEY"):
        OPENAI.credential("https://api.openai.com/v1")


# -- the whole way ---------------------------------------------------------------------------


def test_an_arm_uploads_trains_and_answers_in_the_words_of_its_training(
    fake: FakeProvider, tmp_path: Path
) -> None:
    fake.answer = lambda turns: "fault" if "broken" in turns[-1]["content"] else "billing"
    reported: list[tuple[str, float | None]] = []
    quotes: list[HostedQuote] = []
    clock = Clock()
    arm = tuned(
        fake,
        tmp_path,
        clock=clock,
        epochs=2,
        learning_rate_multiplier=1.5,
        validation=tuple(TRAIN[:2]),
        confirm=quotes.append,
        progress=lambda message, share: reported.append((message, share)),
    )
    checked: Arm = arm
    assert (checked.kind, checked.remote, checked.name) == ("tuned", True, f"openai/{BASE} fine-tuned")
    fitted = fit(arm)

    (job,) = fake.jobs.values()
    chosen = {"n_epochs": 2, "learning_rate_multiplier": 1.5}
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": chosen}}
    assert isinstance(job["seed"], int) and len(job["metadata"]["tunepoint"]) == 64
    uploaded = [json.loads(line) for line in fake.contents[job["training_file"]].splitlines()]
    assert uploaded == chat_rows(TASK, TRAIN, TRAIN)
    assert len(fake.contents[job["validation_file"]].splitlines()) == 2
    assert len(quotes) == 1 and quotes[0].examples == 12
    assert reported == [
        ("Step 1/4: loss=0.1", 0.25),
        ("Step 2/4: loss=0.2", 0.5),
        ("Step 3/4: loss=0.3", 0.75),
    ]
    assert clock.slept == [10.0, 10.0]

    replies = fitted.answer(["it is broken", "message 0"])
    assert [reply.answer for reply in replies] == ["fault", "billing"]
    assert all("response_format" not in request for request in fake.requests)
    assert uploaded[0]["messages"][:-1] in [request["messages"] for request in fake.requests]
    assert fitted.built.examples == 12 and any("2027-01-06" in warning for warning in fitted.built.warnings)
    # 30,000 tokens at $3 a million
    assert (fitted.job.trained_tokens, fitted.job.training_usd) == (30_000, pytest.approx(0.09))
    assert state(tmp_path)[1] == fitted.job


def test_json_answers_are_held_to_their_schema(fake: FakeProvider, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    task = Task.parse({"name": "t", "answer": {"kind": "json", "json_schema": schema}})
    train = [Example(f"m:{i}", f"number {i}", f'{{"n": {i}}}') for i in range(10)]
    fake.answer = lambda turns: '{"n": 7}'
    fitted = tuned(fake, tmp_path).fit(task, train, np.random.default_rng(0))
    assert fitted.answer(["seven"])[0].format_ok
    assert fake.requests[0]["response_format"]["json_schema"]["schema"] == schema


def test_a_finished_job_is_answered_without_asking_the_provider(fake: FakeProvider, tmp_path: Path) -> None:
    fit(tuned(fake, tmp_path))
    fake.seen.clear()
    assert fit(tuned(fake, tmp_path)).job.tuned_model == f"ft:{BASE}:acme::1"
    assert not fake.seen


def test_another_seed_is_another_job(fake: FakeProvider, tmp_path: Path) -> None:
    arm = tuned(fake, tmp_path)
    assert fit(arm, seed=0).job.id != fit(arm, seed=1).job.id
    assert len(fake.jobs) == 2 and len(list(tmp_path.glob("*.json"))) == 2


def test_together_speaks_its_own_paths_and_serves_only_what_is_deployed(tmp_path: Path) -> None:
    with providing(FakeProvider(KEY, together=True)) as fake:
        together = PROVIDERS["together"]
        with pytest.raises(ModelError, match=r"only after you deploy it \(dedicated\).*served_as"):
            fit(tuned(fake, tmp_path, together))
        (job,) = fake.jobs.values()
        assert job["n_epochs"] == 3 and not {"seed", "metadata", "method"} & job.keys()
        served = f"{fake.url}#{job['model_output_name']}"
        fitted = fit(tuned(fake, tmp_path, together, served_as=served))
        assert fitted.answer(["x"])[0].answer == "billing" and len(fake.jobs) == 1
        with pytest.raises(ModelError, match="together takes no learning-rate multiplier"):
            fit(tuned(fake, tmp_path, together, learning_rate_multiplier=2.0))


def test_azure_listens_at_the_users_resource_and_reads_files_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure, clock = PROVIDERS["azure"], Clock()
    with providing(FakeProvider("azure-key", reading=("pending", "running", "processed"))) as fake:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", fake.url)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
        arm = tuned(fake, tmp_path, azure, clock=clock, url=None)
        with pytest.raises(ModelError, match=r"only after you deploy it \(dedicated\).*served_as"):
            fit(arm)
        (job,) = fake.jobs.values()
        assert job["hyperparameters"] == {"n_epochs": 3} and isinstance(job["seed"], int)
        assert fake.seen["GET /files/ID"] == 3 and clock.slept[:2] == [5.0, 5.0]
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT")
    with pytest.raises(ModelError, match="set AZURE_OPENAI_ENDPOINT"):
        azure.base_url()


def test_a_file_that_cannot_be_read_starts_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with providing(FakeProvider("azure-key", reading=("pending", "error"))) as fake:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", fake.url)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
        with pytest.raises(ModelError, match="it cannot read file file-0: a line is no JSON"):
            fit(tuned(fake, tmp_path, PROVIDERS["azure"], url=None))
        assert not fake.jobs


def test_a_server_of_ones_own_gets_plain_hyperparameters(fake: FakeProvider, tmp_path: Path) -> None:
    assert fit(tuned(fake, tmp_path, PROVIDERS["own"])).job.training_usd is None
    assert fake.jobs["job-0"]["hyperparameters"] == {"n_epochs": 3}


def test_refusing_the_quote_uploads_nothing(fake: FakeProvider, tmp_path: Path) -> None:
    def no(offer: HostedQuote) -> None:
        raise ModelError("too dear")

    with pytest.raises(ModelError, match="too dear"):
        fit(tuned(fake, tmp_path, confirm=no))
    assert not fake.files and not fake.jobs


# -- faults on the way -----------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut early", "cut late", "500"])
@pytest.mark.parametrize("call", ["POST /files", "POST /jobs", "GET /jobs/ID", "GET /files", "GET /events"])
def test_cuts_and_server_errors_leave_one_file_and_one_job(
    fake: FakeProvider, tmp_path: Path, call: str, fault: str
) -> None:
    fake.faults = {call: [fault, fault]}
    assert fit(tuned(fake, tmp_path)).job.status == "succeeded"
    assert len(fake.jobs) == 1 and len(fake.files) == 1
    # what happened unheard is found, and not done again
    assert (fake.seen[call] == 1) == (call.startswith("POST") and fault == "cut late")


def test_a_rate_limit_is_waited_out_as_long_as_it_says(fake: FakeProvider, tmp_path: Path) -> None:
    clock = Clock()
    fake.faults = {"POST /files": ["429"]}
    fit(tuned(fake, tmp_path, clock=clock))
    assert clock.slept[0] == 7.0


def test_backoff_is_bounded_and_jittered(fake: FakeProvider, tmp_path: Path) -> None:
    clock = Clock()
    fake.faults = {"GET /files": ["500"] * 6}
    with pytest.raises(ModelError, match=r"no answer after 6 attempts \(HTTP 500\).*run again"):
        fit(tuned(fake, tmp_path, clock=clock))
    assert fake.seen["GET /files"] == 6
    assert all(0.75 * 2**i <= wait <= 2**i for i, wait in enumerate(clock.slept))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("quota", "HTTP 429.*out of credit"),
        ("403", "HTTP 403.*may not start fine-tuning jobs"),
        ("402", "HTTP 402.*payment required"),
        ("400", "HTTP 400 from /v1/fine_tuning/jobs: unknown model"),
        ("429 long", "wait 3600 s, .* at most 120 s"),
        ("no json", "not a JSON object"),
        ("no id", "has no id"),
    ],
)
def test_a_lasting_refusal_is_not_tried_again_and_what_was_done_is_kept(
    fake: FakeProvider, tmp_path: Path, fault: str, message: str
) -> None:
    fake.faults = {"POST /jobs": [fault]}
    with pytest.raises(ModelError, match=message) as raised:
        fit(tuned(fake, tmp_path))
    assert KEY not in str(raised.value) and fake.seen["POST /jobs"] == 1
    assert (state(tmp_path)[1].status, state(tmp_path)[1].file) == ("creating", "file-0")
    fit(tuned(fake, tmp_path))  # mended, run again
    assert len(fake.files) == 1 and len(fake.jobs) == 1


def test_a_refused_key_names_the_variable_and_not_the_key(
    fake: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEPOINT_API_KEY", "sk-another-secret")
    with pytest.raises(ModelError, match=r"HTTP 401\); check TUNEPOINT_API_KEY") as raised:
        fit(tuned(fake, tmp_path))
    assert "sk-another" not in str(raised.value)


@pytest.mark.parametrize("together", [False, True])
def test_a_failed_job_says_why_and_the_next_run_is_a_new_job(tmp_path: Path, together: bool) -> None:
    provider = PROVIDERS["together" if together else "openai"]
    with providing(FakeProvider(KEY, together=together, course=("running", "failed"))) as fake:
        with pytest.raises(ModelError, match=r"job-0 failed: the training file has .*file-0"):
            fit(tuned(fake, tmp_path, provider))
        assert state(tmp_path)[1].status == "failed"
        fake.course = ("succeeded",)
        assert fit(tuned(fake, tmp_path, provider, served_as=f"{fake.url}#x")).job.id == "job-1"
        assert len(fake.files) == 1 and state(tmp_path)[1].message is None


def test_a_job_that_takes_too_long_is_left_running(fake: FakeProvider, tmp_path: Path) -> None:
    fake.course = ("running",)
    run, clock = tuned(fake, tmp_path).run_of(TASK, TRAIN, np.random.default_rng(0)), Clock()
    path = tmp_path / "state.json"
    with OpenAIStyleClient(OPENAI, url=fake.url, sleep=clock.sleep, clock=clock.now) as client:
        job = HostedJob(client, run, path)
        started = job.start()
        with pytest.raises(ModelError, match=r"job-0 is still running after 60 s\. It continues"):
            job.watch(started, patience=60)
    assert fake.jobs["job-0"]["status"] == "running" and len(clock.slept) == 7


# -- killed, and run again -------------------------------------------------------------------


class Killed(BaseException):
    """The process is no more."""


def test_a_running_job_is_watched_again_after_a_kill(fake: FakeProvider, tmp_path: Path) -> None:
    def die(seconds: float) -> None:
        raise Killed

    fake.course = ("queued", "running", "running", "succeeded")
    with pytest.raises(Killed):
        fit(dataclasses.replace(tuned(fake, tmp_path), sleep=die))
    assert state(tmp_path)[1].status == "queued"
    confirmed: list[HostedQuote] = []
    fit(tuned(fake, tmp_path, confirm=confirmed.append))
    assert (fake.seen["POST /files"], fake.seen["POST /jobs"], confirmed) == (1, 1, [])


@pytest.mark.parametrize("status", ["uploading", "creating"])
@pytest.mark.parametrize("page", [100, 1])
def test_a_kill_between_the_job_and_its_state_starts_no_second_job(
    fake: FakeProvider, tmp_path: Path, status: str, page: int
) -> None:
    fit(tuned(fake, tmp_path))
    path, job = state(tmp_path)
    dataclasses.replace(job, status=status, id=None, tuned_model=None, trained_tokens=None).save(path)  # type: ignore[arg-type]
    other = fake.hold("someone-elses.jsonl", b"{}")
    fake.begin({"model": "m", "training_file": other["id"], "suffix": "theirs"})
    fake.page = page
    assert fit(tuned(fake, tmp_path)).job.id == "job-0"
    assert len(fake.jobs) == 2 and fake.seen["POST /jobs"] == 1


def test_a_lost_state_file_starts_no_second_job(tmp_path: Path) -> None:
    for together in (False, True):
        with providing(FakeProvider(KEY, together=together)) as fake:
            provider = PROVIDERS["together" if together else "own"]
            for keep in ("one", "two"):
                fit(tuned(fake, tmp_path / f"{together}-{keep}", provider, served_as=f"{fake.url}#x"))
            assert len(fake.jobs) == 1 and len(fake.files) == 1


def test_half_a_file_is_not_taken_for_the_whole(fake: FakeProvider, tmp_path: Path) -> None:
    run = tuned(fake, tmp_path).run_of(TASK, TRAIN, np.random.default_rng(0))
    fake.hold(run.file_name("train"), b'{"messages": [')
    fit(tuned(fake, tmp_path))
    assert fake.jobs["job-0"]["training_file"] == "file-1"


def test_a_damaged_state_file_is_named(fake: FakeProvider, tmp_path: Path) -> None:
    fit(tuned(fake, tmp_path))
    path, _ = state(tmp_path)
    path.write_text('{"fingerprint": "x"', encoding="utf-8")
    with pytest.raises(ModelError, match=r"damaged\. Delete it and run again"):
        fit(tuned(fake, tmp_path))


def test_cancelling(fake: FakeProvider, tmp_path: Path) -> None:
    fake.course = ("running",)
    run, path = tuned(fake, tmp_path).run_of(TASK, TRAIN, np.random.default_rng(0)), tmp_path / "s.json"
    with OpenAIStyleClient(OPENAI, url=fake.url, sleep=Clock().sleep) as client:
        job = HostedJob(client, run, path)
        with pytest.raises(ModelError, match="nothing to cancel"):
            job.cancel()
        started = job.start()
        assert job.cancel().status == "cancelled" == fake.jobs["job-0"]["status"]
        with pytest.raises(ModelError, match="job job-0 was cancelled"):
            job.watch(started)
        assert job.existing() is None
        fake.course = ("succeeded",)
        job.watch(job.start())
        assert job.cancel().status == "succeeded" and fake.seen["POST /cancel"] == 1


# -- the key ---------------------------------------------------------------------------------


def test_the_key_stands_in_no_file_no_error_and_no_log(
    fake: FakeProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.course, fake.why = ("running", "failed"), f"the key {KEY} may not train"
    with caplog.at_level(logging.DEBUG), pytest.raises(ModelError, match="the key … may not train") as raised:
        fit(tuned(fake, tmp_path))
    fake.course = ("succeeded",)
    with caplog.at_level(logging.DEBUG):
        fitted = fit(tuned(fake, tmp_path))
    assert KEY not in str(raised.value) and KEY not in caplog.text and KEY not in repr(fitted.job)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and all(KEY not in path.read_text(encoding="utf-8") for path in files)
    assert all(KEY.encode() not in content for content in fake.contents.values())

"""Tuning at Fireworks, Google Cloud and Amazon: their own clients against servers that speak as they do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloud_servers import KEY, FakeAmazon, FakeCloud, FakeFireworks, FakeGoogle, in_the_cloud

from tunepoint.arms.hosted.hosted import FittedHosted, HostedTuned, chat_model
from tunepoint.arms.hosted.job_state import JobState
from tunepoint.arms.hosted.jobs import HostedJob, cancel_job
from tunepoint.arms.hosted.opening import open_client
from tunepoint.arms.hosted.providers import PROVIDERS
from tunepoint.data.examples import Example
from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.abilities import Abilities
from tunepoint.models.chat import ChatModel, Reply
from tunepoint.task.task import Task

FIREWORKS, VERTEX, BEDROCK = "fireworks", "vertex", "bedrock"
BASES = {FIREWORKS: "qwen3-8b", VERTEX: "gemini-2.5-flash", BEDROCK: "amazon.nova-micro-v1:0:128k"}
SERVED = {FIREWORKS: "fireworks/accounts/acme/deployments/d", BEDROCK: "bedrock/arn:aws:deployment/d"}
TASK = Task.parse(
    {
        "name": "t",
        "instruction": "Route the message.",
        "answer": {"labels": {"billing": "money", "fault": ""}},
    }
)
TRAIN = [Example(f"m.csv:{i}", f"message {i}", ("billing", "fault")[i % 2]) for i in range(12)]
DEV = tuple(Example(f"d.csv:{i}", f"other {i}", ("billing", "fault")[i % 2]) for i in range(4))


@pytest.fixture(params=[FIREWORKS, VERTEX, BEDROCK])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cloud(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    fake: FakeCloud = {FIREWORKS: FakeFireworks, VERTEX: FakeGoogle, BEDROCK: FakeAmazon}[name]()
    with in_the_cloud(fake, monkeypatch):
        yield fake


class Nobody:
    """A chat model that is not asked."""

    def __init__(self, name: str) -> None:
        self.name = name

    def answer(self, prompts: Any) -> list[Reply]:
        raise AssertionError(prompts)


def nobody(name: str, abilities: Abilities) -> ChatModel:
    return Nobody(name)  # type: ignore[return-value]


def tuned(name: str, keep: Path, **changes: Any) -> HostedTuned:
    options: dict[str, Any] = {"served_as": SERVED.get(name), "open": nobody, "sleep": lambda seconds: None}
    return HostedTuned(PROVIDERS[name], BASES[name], keep, **{**options, **changes})


def fit(arm: HostedTuned, seed: int = 0) -> FittedHosted:
    return arm.fit(TASK, TRAIN, np.random.default_rng(seed))


def state(keep: Path) -> JobState:
    (path,) = keep.glob("*.json")
    job = JobState.read(path)
    assert job is not None
    return job


def test_rows_are_stored_once_and_a_job_is_watched_to_its_end(
    name: str, cloud: FakeCloud, tmp_path: Path
) -> None:
    said: list[str] = []
    arm = tuned(name, tmp_path, validation=DEV, progress=lambda what, share: said.append(what))
    fitted = fit(arm)
    (job,) = cloud.jobs
    assert len(cloud.files) == 2 and sorted(map(_rows, cloud.files.values())) == [4, 12]
    assert fitted.job.status == "succeeded" and fitted.job.id
    model = fitted.model
    assert isinstance(model, Nobody)
    if name == FIREWORKS:
        assert job.body["baseModel"] == "accounts/fireworks/models/qwen3-8b" and job.body["epochs"] == 3
        assert job.body["evaluationDataset"].endswith("-validation") and not job.body["earlyStop"]
        assert said == ["40% trained", "100% trained"]
        assert fitted.built.usd == 1.25, "what Fireworks estimates"
        assert model.name == SERVED[name]
    elif name == VERTEX:
        assert job.body["baseModel"] == BASES[name]
        spec = job.body["supervisedTuningSpec"]
        assert spec["hyperParameters"]["epochCount"] in (3, "3") and spec["exportLastCheckpointOnly"] is True
        assert spec["trainingDatasetUri"].startswith("gs://rows/tuning/tunepoint-")
        assert spec["validationDatasetUri"].endswith("-validation.jsonl")
        assert said == ["running", "succeeded"]
        place = "projects/p/locations/europe-west4"
        assert model.name == f"vertex/ft:gemini-2.5-flash:{place}/endpoints/100"
        assert fitted.job.trained_tokens == 3_000
    else:
        assert job.body["baseModelIdentifier"] == BASES[name]
        assert job.body["hyperParameters"] == {"epochCount": "3"}
        assert job.body["roleArn"].endswith("role/Tuning") and job.body["customizationType"] == "FINE_TUNING"
        assert job.body["trainingDataConfig"]["s3Uri"].startswith("s3://rows/tuning/tunepoint-")
        assert len(job.body["validationDataConfig"]["validators"]) == 1
        assert said == ["running", "succeeded"] and model.name == SERVED[name]
    before = sum(cloud.calls.values())
    fit(arm)
    assert sum(cloud.calls.values()) == before, "a finished job is read from its file"


def _rows(content: bytes) -> int:
    return content.count(b"\n")


def test_each_cloud_gets_rows_in_its_own_form(name: str, cloud: FakeCloud, tmp_path: Path) -> None:
    fit(tuned(name, tmp_path))
    (content,) = cloud.files.values()
    row = json.loads(content.splitlines()[0])
    if name == FIREWORKS:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system", "user", "assistant"] and row["messages"][2]["content"] == "billing"
    elif name == VERTEX:
        assert "Route the message." in row["systemInstruction"]["parts"][0]["text"]
        assert [content["role"] for content in row["contents"]] == ["user", "model"]
        assert row["contents"][1]["parts"] == [{"text": "billing"}]
    else:
        assert row["schemaVersion"] == "bedrock-conversation-2024"
        assert "Route the message." in row["system"][0]["text"]
        assert row["messages"][1] == {"role": "assistant", "content": [{"text": "billing"}]}


@pytest.mark.parametrize("operation", ["upload", "create"])
@pytest.mark.parametrize("fault", [0, 500, 429])
def test_lost_answers_and_passing_faults_leave_one_job(
    name: str, cloud: FakeCloud, tmp_path: Path, operation: str, fault: int
) -> None:
    cloud.faults[operation] = [fault]
    assert fit(tuned(name, tmp_path)).job.status == "succeeded"
    assert len(cloud.jobs) == 1 and len(cloud.files) == 1
    assert cloud.calls["create"] == (2 if operation == "create" and fault else 1)


def test_a_kill_before_the_state_is_written_starts_no_second_job(
    name: str, cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = tuned(name, tmp_path)
    run = arm.run_of(TASK, TRAIN, np.random.default_rng(0))
    with open_client(PROVIDERS[name], sleep=lambda seconds: None) as client:
        HostedJob(client, run, arm.state_file(run)).start()
    other = tuned(name, tmp_path / "other")
    fit(other, seed=1)  # another run's job stands in the list, on another page
    arm.state_file(run).unlink()
    assert fit(arm).job.status == "succeeded"
    assert len(cloud.jobs) == len(cloud.files) == 2


def test_a_failed_job_says_why_and_the_next_run_starts_another(
    name: str, cloud: FakeCloud, tmp_path: Path
) -> None:
    cloud.fails = True
    with pytest.raises(ModelError, match=r"failed: The rows do not suit the model.*run again"):
        fit(tuned(name, tmp_path))
    cloud.fails = False
    assert cloud.jobs.pop()
    assert fit(tuned(name, tmp_path)).job.status == "succeeded" and len(cloud.files) == 1


def test_a_job_is_cancelled(name: str, cloud: FakeCloud, tmp_path: Path) -> None:
    arm = tuned(name, tmp_path)
    run = arm.run_of(TASK, TRAIN, np.random.default_rng(0))
    with open_client(PROVIDERS[name]) as client:
        started = HostedJob(client, run, arm.state_file(run)).start()
    assert started.id is not None
    assert cancel_job(tmp_path, started.id).status == "cancelled" and cloud.jobs[0].cancelled
    assert state(tmp_path).status == "cancelled"


@pytest.mark.parametrize(("status", "words"), [(401, "key was refused|refused"), (403, "check your quota")])
def test_refused_rights_are_no_second_attempt_and_show_no_key(
    name: str, cloud: FakeCloud, tmp_path: Path, status: int, words: str
) -> None:
    cloud.faults["create"] = [status]
    with pytest.raises(ModelError, match=words) as caught:
        fit(tuned(name, tmp_path))
    assert cloud.calls["create"] == 1 and KEY not in str(caught.value) and not cloud.jobs
    assert state(tmp_path).file is not None, "the upload is kept"


def test_a_model_that_has_to_be_deployed_says_so(name: str, cloud: FakeCloud, tmp_path: Path) -> None:
    if name == VERTEX:
        assert fit(tuned(name, tmp_path)).job.tuned_model
        return
    with pytest.raises(ModelError, match=r"only after you deploy it .*served_as; it is not trained again"):
        fit(tuned(name, tmp_path, served_as=None))
    fit(tuned(name, tmp_path))
    assert len(cloud.jobs) == 1


def test_what_was_tuned_answers(cloud: FakeCloud, name: str, tmp_path: Path) -> None:
    served = {BEDROCK: SERVED[BEDROCK], FIREWORKS: f"{cloud.url}/inference/v1#accounts/acme/deployments/d"}
    cloud.answer = lambda text: "fault" if text.endswith("3") else "billing"
    fitted = fit(tuned(name, tmp_path, served_as=served.get(name), open=chat_model))
    replies = fitted.answer(["message 2", "message 3"])
    fitted.model.endpoint.close()  # type: ignore[attr-defined]
    assert [reply.answer for reply in replies] == ["billing", "fault"]
    asked = cloud.asked[0].get("model")
    expected = {FIREWORKS: "accounts/acme/deployments/d", BEDROCK: SERVED[BEDROCK].partition("/")[2]}
    assert asked == expected.get(name, "projects/p/locations/europe-west4/endpoints/100")


SETTINGS = [
    (FIREWORKS, "FIREWORKS_ACCOUNT_ID", "", "set FIREWORKS_ACCOUNT_ID"),
    (VERTEX, "TUNEPOINT_VERTEX_BUCKET", "", "set TUNEPOINT_VERTEX_BUCKET, as to gs://"),
    (VERTEX, "TUNEPOINT_VERTEX_BUCKET", "s3://rows", r"gs://my-bucket/tunepoint \(it is 's3://rows'\)"),
    (VERTEX, "GOOGLE_CLOUD_LOCATION", "", "set GOOGLE_CLOUD_LOCATION"),
    (BEDROCK, "TUNEPOINT_BEDROCK_BUCKET", "", "set TUNEPOINT_BEDROCK_BUCKET, as to s3://"),
    (BEDROCK, "TUNEPOINT_BEDROCK_ROLE", "admin", r"set TUNEPOINT_BEDROCK_ROLE.*\(it is 'admin'\)"),
    (BEDROCK, "AWS_REGION", "", "set AWS_REGION"),
]


@pytest.mark.parametrize(("where", "variable", "value", "words"), SETTINGS)
def test_a_missing_setting_is_named_before_anything_is_sent(
    where: str, variable: str, value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake: FakeCloud = {FIREWORKS: FakeFireworks, VERTEX: FakeGoogle, BEDROCK: FakeAmazon}[where]()
    for other in ("CLOUD_ML_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(other, raising=False)
    with in_the_cloud(fake, monkeypatch):
        monkeypatch.setenv(variable, value)
        with pytest.raises(ModelError, match=words):
            fit(tuned(where, tmp_path))
    assert not fake.calls


def test_without_its_client_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module = {FIREWORKS: "fireworks", VERTEX: "vertex", BEDROCK: "bedrock"}[name]
    package = {FIREWORKS: "fireworks", VERTEX: "google.cloud", BEDROCK: "boto3"}[name]
    for loaded in [key for key in sys.modules if key == package or key.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, package, None)
    for ours in (f"tunepoint.arms.hosted.{module}", "tunepoint.models.clouds.amazon"):
        monkeypatch.delitem(sys.modules, ours, raising=False)
    with pytest.raises(MissingExtra, match=name):
        open_client(PROVIDERS[name])


def test_an_address_of_its_own_is_for_apis_in_openais_style(name: str) -> None:
    with pytest.raises(ModelError, match="leave the address out"):
        open_client(PROVIDERS[name], url="http://127.0.0.1:1/v1")

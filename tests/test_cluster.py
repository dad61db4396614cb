"""A study on a Ray cluster of two machines, here two nodes on one: the same study, whoever dies."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import ray
from checkpoints import tiny_checkpoint
from gguf_weights import SMOLLM2, smollm2
from ray.cluster_utils import Cluster
from servers import Fake, serving
from test_tuned_study import routing

from tunepoint import Result, Task, run
from tunepoint.arms.encoder.classifier import FineTuned
from tunepoint.errors import BudgetReached, ModelError, StudyError
from tunepoint.models.chat import Message
from tunepoint.models.endpoints import Completion, Request, allow_all
from tunepoint.models.named_models import NamedModel, open_here, open_hosted
from tunepoint.study.cluster import ray_workers
from tunepoint.study.cluster.machines import StudyMachines, open_cluster
from tunepoint.study.cluster.training import modules_beside
from tunepoint.task.sections import Tune

STORE_BYTES = 200 * 2**20


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    """Two nodes with one processor each."""
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE_BYTES},
    )
    cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster
    del os.environ["RAY_ADDRESS"]
    ray.shutdown()
    cluster.shutdown()


def answers(folder: Path, name: str) -> list[str]:
    """All trials of a log but for what a clock measured, in a fixed order."""
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    clocks = ("seconds", "core_seconds")
    return sorted(json.dumps({k: v for k, v in t.items() if k not in clocks}, sort_keys=True) for t in lines)


def test_a_study_is_the_same_though_a_node_dies(
    two_nodes: Cluster,
    finished: Result,
    small_task: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = two_nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    starting: list[threading.Timer] = []
    start_task = ray_workers.start_task

    def starting_task(*arguments: Any) -> Any:
        if not starting:  # every node has a task by then: there are six
            starting.append(threading.Timer(1.0, two_nodes.remove_node, [node]))
            starting[0].start()
        return start_task(*arguments)

    monkeypatch.setattr(ray_workers, "start_task", starting_task)
    result = run(Task.load(small_task), out=tmp_path / "study", seed=3, on="ray")
    starting[0].join()
    assert len(two_nodes.list_all_nodes()) == 2
    assert finished.folder is not None
    for log in ("dev.jsonl", "curve.jsonl", "trials.jsonl"):
        assert answers(tmp_path / "study", log) == answers(finished.folder, log)
    assert result.document["winner"] == finished.document["winner"]
    assert not (tmp_path / "study" / "arms" / "curve").exists()


def test_what_was_trained_is_not_trained_again(
    two_nodes: Cluster,
    finished: Result,
    small_task: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert finished.folder is not None
    shutil.copytree(finished.folder, tmp_path / "study")
    started: list[Any] = []
    monkeypatch.setattr(ray_workers, "start_task", lambda *task: started.append(task))
    again = run(Task.load(small_task), out=tmp_path / "study", seed=3, on="ray")
    assert again.document["winner"] == finished.document["winner"] and not started


def test_a_cluster_is_paid_by_the_clock(
    two_nodes: Cluster, small_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that does not end costs until the cap is reached, and what it has cost is not forgotten."""
    monkeypatch.setattr(FineTuned, "seconds_for", lambda self, examples: 0.0)
    monkeypatch.setattr(ray_workers, "start_task", lambda *task: (Future(), lambda: None))
    task = Task.load(small_task)
    dear = task.costs.model_copy(update={"cluster_hour_usd": 3600.0})
    task = task.model_copy(update={"costs": dear})
    with pytest.raises(BudgetReached, match=r"of \$4\.000000 are spent"):
        run(task, out=tmp_path / "study", seed=3, on="ray", max_usd=4.0)
    spent = json.loads((tmp_path / "study" / "manifest.json").read_text())["spent_usd"]
    assert 4 <= spent < 8  # a look each second
    with pytest.raises(BudgetReached):
        run(task, out=tmp_path / "study", seed=3, on="ray", max_usd=4.0)


def test_an_hour_of_cores_is_the_price_where_none_is_given(two_nodes: Cluster, small_task: Path) -> None:
    task = Task.load(small_task)
    with open_cluster("ray") as machines:
        assert machines.cores == 2 and machines.hour_usd(task) == pytest.approx(0.08)


def test_a_process_takes_its_share_of_a_machine_with_several_gpus() -> None:
    sizes = {"a": (16, 4), "b": (8, 1), "c": (4, 0)}
    nodes = [ray_workers.Node(name, name, *size) for name, size in sizes.items()]
    machines = StudyMachines(nodes)
    assert machines._resources(gguf=False) == ray_workers.Resources(4, 1.0)
    assert machines._resources(gguf=True) == ray_workers.Resources(4)
    assert StudyMachines(nodes[2:])._resources(gguf=False) == ray_workers.Resources(4)


def test_a_vllm_model_is_asked_where_its_server_is() -> None:
    nodes = [ray_workers.Node(name, name, 2, 0) for name in "ab"]
    hosted: Any = object()
    assert StudyMachines(nodes).calls(NamedModel("vllm:base"), hosted) is hosted


def test_modules_of_packages_go_along_for_a_scorer(tmp_path: Path) -> None:
    for name in (
        "scorer.py",
        "package/__init__.py",
        "package/deep/part.py",
        ".venv/lib/x.py",
        "my-data/y.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert sorted(modules_beside(tmp_path)) == ["package/__init__.py", "package/deep/part.py", "scorer.py"]


def test_an_address_without_a_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**settings: Any) -> None:
        raise ConnectionError("ray client connection timeout\nand more")

    monkeypatch.setattr(ray, "init", unreachable)
    with (
        pytest.raises(StudyError, match=r"ray://nowhere:1: no Ray cluster answers \(ray client .* timeout\)"),
        open_cluster("ray://nowhere:1"),
    ):
        raise AssertionError


def test_a_machine_with_other_versions_is_named(two_nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cluster("ray"):
        listed = ray_workers.nodes()
        monkeypatch.setattr(ray_workers, "version", lambda name: "0.0.1+cpu")
        with pytest.raises(StudyError, match=r"has other versions \(tunepoint .*, here 0\.0\.1"):
            ray_workers.check_nodes(listed)


@pytest.fixture(scope="module")
def questions() -> list[Request]:
    words = ("invoice", "refund", "pairing", "privacy", "router", "password", "charge", "bill")
    return [
        Request((Message("user", f"Say yes or no: is this about money? {word}"),), 4, choices=("yes", "no"))
        for word in words
    ]


def texts(endpoint: Any, requests: list[Request]) -> list[str]:
    done: dict[int, Completion] = {}
    endpoint.complete(requests, done.__setitem__, allow_all)
    return [done[position].text for position in range(len(requests))]


def test_a_model_runs_on_every_machine_and_survives_a_worker(
    two_nodes: Cluster, questions: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    smollm2()
    alone = open_here(NamedModel(SMOLLM2), processors=1)
    expected = texts(alone, questions)
    alone.close()
    workers: list[ray_workers.RayWorker] = []
    original = ray_workers.RayWorker.__init__

    def noting(self: ray_workers.RayWorker, *arguments: Any) -> None:
        original(self, *arguments)
        workers.append(self)

    monkeypatch.setattr(ray_workers.RayWorker, "__init__", noting)
    with open_cluster("ray") as machines:
        model = machines.own_model(NamedModel(SMOLLM2))
        assert model.parameters == alone.parameters
        assert texts(model, questions) == expected
        assert len(workers) == 2
        workers[0].stop()  # as if its machine died
        assert texts(model, questions) == expected
        machines.release()
        assert texts(model, questions) == expected


def test_calls_of_a_provider_share_one_width_and_one_cap(two_nodes: Cluster) -> None:
    fake = Fake(lambda messages, body: messages[-1]["content"].upper(), latency=0.05)
    requests = [Request((Message("user", f"word {number}"),), 8) for number in range(60)]
    with serving(fake), open_cluster("ray") as machines:
        model = NamedModel(f"{fake.url}#tiny", concurrency=6)
        hosted = open_hosted(model)
        calls = machines.calls(model, hosted)
        assert texts(calls, requests) == [f"WORD {number}" for number in range(60)]
        assert len(fake.calls) == 60 and 4 <= fake.most_at_once <= 6
        hosted.close()


def test_a_key_that_a_machine_lacks_is_named(two_nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(lambda messages, body: "yes", key="secret")
    with serving(fake), open_cluster("ray") as machines:
        monkeypatch.setenv("ONLY_HERE", "secret")  # the nodes started before
        model = NamedModel(f"{fake.url}#tiny", concurrency=4, key_env="ONLY_HERE")
        hosted = open_hosted(model)
        with pytest.raises(ModelError, match="ONLY_HERE"):
            texts(machines.calls(model, hosted), [Request((Message("user", "x"),), 8) for _ in range(4)])
        hosted.close()


@pytest.mark.no_cover  # what it runs, others cover
def test_adapters_are_trained_and_answer_on_the_machines(two_nodes: Cluster, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "tiny")
    folder = tmp_path / "task"
    folder.mkdir()
    task = routing(folder, 44, tune=[{"base": str(base), "seeds": 1, "epochs": 1}])
    run(task, out=tmp_path / "alone")
    run(task, out=tmp_path / "cluster", on="ray")
    for log in ("dev.jsonl", "trials.jsonl"):
        assert texts_of(tmp_path / "cluster", log) == texts_of(tmp_path / "alone", log)
    assert warnings_of(tmp_path / "cluster") == warnings_of(tmp_path / "alone")


def test_models_and_adapters_have_room_beside_each_other(small_task: Path) -> None:
    """They take turns, and their processes live on: two models and the adapters of a task share a machine."""
    nodes = [ray_workers.Node(name, name, 6, 0) for name in "ab"]
    machines = StudyMachines(nodes)
    tuned = Task.load(small_task).model_copy(update={"tune": (Tune(base="b"),)})
    machines.training(tuned)
    for name in ("local:a", "local:b"):
        machines.own_model(NamedModel(name))
    assert machines._shared(machines._resources(gguf=False)) == ray_workers.Resources(2.0)


def texts_of(folder: Path, name: str) -> list[tuple[str, ...]]:
    """Arm, item, seed and answer of each trial; padding in batches may change a confidence."""
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return sorted((t["arm"], t["item"], str(t.get("seed")), str(t["answer"])) for t in lines)


def warnings_of(folder: Path) -> list[str]:
    """What looked wrong in the trainings."""
    arms = json.loads((folder / "manifest.json").read_text())["arms"]
    return sorted(f"{arm} {n} {fit['warnings']}" for arm in arms for n, fit in arms[arm]["fits"].items())

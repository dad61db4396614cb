from __future__ import annotations

import csv
import os
import pickle
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

# One thread for each test process, and those it starts: with a process on every core, threads that wait
# for each other by spinning make a training several times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import small_encoder

from tunepoint import Result, Task, run
from tunepoint.models.encoder import Encoder
from tunepoint.study.seal import REGISTER

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "support-triage"
QUEUES = ("billing", "device_setup", "privacy_security")


HEAVY_FIXTURES = {"encoder", "finished"}
"""Fixtures that load a model or run a study."""
HEAVY_MODULES = {
    *("test_batches", "test_cloud_tuning", "test_disagreements", "test_fresh", "test_labelling"),
    *("test_migration", "test_written_prompts"),
    *("test_anthropic", "test_caching", "test_capture", "test_causal", "test_chat_study", "test_curves"),
    *("test_docs", "test_endpoints"),
    *("test_extraction", "test_feedback", "test_fuzz", "test_gateway", "test_gguf_model", "test_hosted"),
    *("test_cluster", "test_gguf_tuning", "test_journal", "test_partitions"),
    "test_judge",
    *("test_keys", "test_launches", "test_load", "test_local", "test_loop", "test_onnx", "test_properties"),
    *(
        "test_report",
        "test_report_forms",
        "test_routing",
        "test_replicas",
        "test_rollouts",
        "test_sealed",
        "test_served",
    ),
    *("test_servers_behind", "test_serving", "test_studio", "test_gate", "test_agents"),
    *("test_slow_clients", "test_teaching", "test_tuned_study", "test_tunings", "test_vllm", "test_whatif"),
}
"""Modules whose tests train a model, run a study, start a server or a browser, or simulate for seconds."""
ONE_PROCESS_MODULES = {
    *(
        "test_cluster",
        "test_extraction",
        "test_gguf_model",
        "test_launches",
        "test_served",
        "test_serving",
        "test_whatif",
    ),
}
"""Modules with a costly fixture, made once because one process runs all their tests."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test-fast` leaves out, and what stays in one process."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if item.path.stem in HEAVY_MODULES or fixtures & HEAVY_FIXTURES:
            item.add_marker(pytest.mark.heavy)
        if item.path.stem in ONE_PROCESS_MODULES:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def write_small(folder: Path, per_queue: int = 26) -> Path:
    """A task of three queues with the shortest messages of the example."""
    with (EXAMPLE / "messages.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["queue"] in QUEUES and row["text"]]
    rows.sort(key=lambda row: len(row["text"]))
    taken: dict[str, int] = defaultdict(int)
    with (folder / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["date", "customer_id", "queue", "text"])
        writer.writeheader()
        for row in rows:
            taken[row["queue"]] += 1
            if taken[row["queue"]] <= per_queue:
                writer.writerow(row)
    path = folder / "task.toml"
    path.write_text(
        """
name = "small"
instruction = "Route the message."
[data]
path = "messages.csv"
input = "text"
target = "queue"
group = "customer_id"
[answer.labels]
billing = "charges and invoices"
device_setup = "pairing and installing"
privacy_security = "personal data and security"
[traffic]
queries_per_month = [20_000, 40_000, 90_000]
[value]
error_usd = 0.4
""",
        encoding="utf-8",
    )
    return path


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first test process makes and the others read.

    Args:
        name: of the folder.
        make: fills it; called once in a whole run of the suite, with several processes too.

    """
    base = factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, complete = shared / name, shared / f"{name}.complete"
    with FileLock(f"{folder}.lock"):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            complete.touch()
    return folder


@pytest.fixture(scope="session", autouse=True)
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small encoder, which stands in for MiniLM in every test that does not ask for it."""
    folder = made_once(tmp_path_factory, "small-encoder", small_encoder.write_small_encoder)
    small_encoder.use(folder)
    return folder


@pytest.fixture(scope="session")
def with_small_encoder(small_weights: Path) -> list[str]:
    """The command line in a process of its own, with the small encoder."""
    return [sys.executable, small_encoder.__file__, str(small_weights)]


@pytest.fixture(scope="session")
def encoder(small_weights: Path) -> Encoder:
    return Encoder.load()


@pytest.fixture(scope="module")
def minilm(small_weights: Path) -> Iterator[Encoder]:
    """MiniLM itself; whatever else the module loads is the published encoder too."""
    small_encoder.use(None)
    yield Encoder.load()
    small_encoder.use(small_weights)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("small")).parent


@pytest.fixture
def small_task(small_folder: Path) -> Path:
    """The small task, with no study of an earlier test on its register."""
    (small_folder / REGISTER).unlink(missing_ok=True)
    return small_folder / "task.toml"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One finished study that many tests look at; each test process has a copy of its own."""

    def study(folder: Path) -> None:
        result = run(Task.load(write_small(folder)), out=folder / "study", seed=3)
        (folder / "result.pickle").write_bytes(pickle.dumps(result))

    made = made_once(tmp_path_factory, "small-study", study)
    copy = tmp_path_factory.mktemp("studies") / "small"
    shutil.copytree(made / "study", copy)
    result: Result = pickle.loads((made / "result.pickle").read_bytes())
    return replace(result, folder=copy)


@pytest.fixture
def chat_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of extraction without the encoder that is trained on them: tests of what else answers."""
    monkeypatch.setattr("tunepoint.arms.catalog.installed_encoder", lambda: None)

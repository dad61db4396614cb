"""What is installed and reachable, for `tunepoint doctor`."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tunepoint.errors import ModelError, TunepointError
from tunepoint.models.providers import PROVIDERS

if TYPE_CHECKING:
    from tunepoint.task.sections import ModelName
    from tunepoint.task.task import Task

MIN_FREE_GB = 1.0
"""Room for the encoder's cached vectors, its training runs and a study."""
PORTS = (8000, 11434, 8080, 1234)
"""Where vLLM and `transformers serve`, Ollama, llama.cpp and LM Studio listen."""
MAX_ASKED_MODELS = 4
"""Models of one local server that are asked a question: loading each takes its time."""


@dataclass(frozen=True)
class Check:
    """One thing that `doctor` looks for."""

    name: str
    ok: bool
    detail: str
    needed: bool = True
    """False for what only some tasks need; it does not make the command fail."""


def diagnose(ports: Sequence[int] = PORTS) -> list[Check]:
    """Return a check of everything that a study may need, in the order in which it needs it.

    Args:
        ports: of this machine, where servers of models may listen.

    """
    checks = [
        Check(
            "python",
            sys.version_info >= (3, 11),
            f"{platform.python_version()}; 3.11 or later is needed",
        )
    ]
    checks += [_package(name) for name in ("numpy", "scipy", "scikit-learn", "pydantic")]
    checks += [_package(name, "pip install 'tunepoint[tune]'") for name in ("torch", "transformers")]
    checks.append(_package("pyarrow", "only for Parquet: pip install 'tunepoint[parquet]'", needed=False))
    checks += [_weights(), _disk()]
    return [*checks, *_language_models(), *_keys(), *_servers(ports)]


def diagnose_task(path: Path) -> list[Check]:
    """Return a check of every model that a task names; all of them are needed.

    Raises:
        TaskError: the task cannot be read.

    """
    from tunepoint.task.task import Task

    task = Task.load(path)
    named = [*task.models, *([task.score.judge] if task.score.judge else [])]
    return [_task_model(model, task) for model in named]


def _task_model(named: ModelName, task: Task) -> Check:
    """Check a model of a task: a log, weights of this machine, a server, or a provider and its key."""
    from tunepoint.models.gguf.catalog import known_model
    from tunepoint.models.gguf.store import ModelStore
    from tunepoint.models.providers import EMBEDDED_PREFIX, GGUF_PREFIX
    from tunepoint.task.sections import EMBEDDED, RECORDED_PREFIX

    name, what = named.name, f"task: {named.name}"
    if name == EMBEDDED:
        return replace(_weights(), name=what)
    for prefix in (RECORDED_PREFIX, GGUF_PREFIX):
        if name.startswith(prefix):
            path = task.resolve(Path(name.removeprefix(prefix)))
            return Check(what, path.exists(), str(path) if path.exists() else f"{path}: no such file")
    if name.startswith(EMBEDDED_PREFIX):
        try:
            return Check(what, True, str(ModelStore().find(known_model(name.removeprefix(EMBEDDED_PREFIX)))))
        except ModelError as error:
            return Check(what, False, str(error))
    return _hosted_model(what, named)


def _hosted_model(what: str, named: ModelName) -> Check:
    """Check a model's address and key, and that its client is there; only a server at a URL is asked."""
    from tunepoint.models.named_models import endpoint_kind
    from tunepoint.models.providers import parse_model_name

    try:
        endpoint_kind(named.name)
        address = parse_model_name(named.name, named.key_env)
        address.key()
    except TunepointError as error:
        return Check(what, False, str(error))
    if named.name.startswith("http"):
        return replace(_answers(named.name), name=what, needed=True)
    host = urlsplit(address.url).hostname
    return Check(what, True, f"{host} is asked for {address.model} when the study begins")


def summary(checks: Sequence[Check]) -> str:
    """Return in one line whether everything is ready, and otherwise what to fix first."""
    wrong = [check for check in checks if check.needed and not check.ok]
    optional = sum(not check.ok and not check.needed for check in checks)
    rest = f" Optional and missing: {optional}." if optional else ""
    if not wrong:
        return f"Everything that a study needs is installed.{rest}"
    first = wrong[0]
    others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"Fix first: {first.name}: {first.detail}{others}.{rest}"


def _package(name: str, remedy: str = "reinstall tunepoint", *, needed: bool = True) -> Check:
    try:
        return Check(name, True, version(name), needed)
    except PackageNotFoundError:
        return Check(name, False, remedy, needed)


def _weights() -> Check:
    """Check the embedded encoder's weights by their hash."""
    if importlib.util.find_spec("torch") is None:
        return Check("embedded:minilm", False, "needs torch first")
    from tunepoint.models.encoder_weights import check_weights, find_weights

    return _weights_at(find_weights, check_weights)


def _weights_at(find: Callable[[], Path], check: Callable[[Path], None]) -> Check:
    try:
        folder = find()
        check(folder)
    except ModelError as error:
        return Check("embedded:minilm", False, str(error))
    return Check("embedded:minilm", True, f"weights verified in {folder}")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check("disk", free > MIN_FREE_GB, f"{free:.1f} GB free here, {MIN_FREE_GB:g} GB is enough")


def _language_models() -> list[Check]:
    """Check what runs language models here, and which of them are on this machine."""
    from tunepoint.models.gguf.catalog import KNOWN_MODELS
    from tunepoint.models.gguf.store import ModelStore

    runtime = _package("xllamacpp", "only for embedded: models: pip install 'tunepoint[llm]'", needed=False)
    store, checks = ModelStore(), [runtime]
    for model in KNOWN_MODELS.values():
        try:
            path, ok = str(store.find(model)), True
        except ModelError as error:
            path, ok = str(error), False
        checks.append(Check(f"embedded:{model.name}", ok, path, needed=False))
    return checks


# -- chat models ---------------------------------------------------------------------------


def _keys() -> list[Check]:
    """Check which keys are in the environment, and whether their providers accept them. Shows no key."""
    checks = []
    for name, provider in PROVIDERS.items():
        if provider.key is None:
            continue
        if not provider.key_needed:
            is_set = bool(os.environ.get(provider.key))
            state = "is set" if is_set else "is not set; other credentials do as well"
            checks.append(Check(name, is_set, f"{provider.key} {state}", needed=False))
        elif os.environ.get(provider.key):
            checks.append(_provider(f"{name}/", f"{provider.key} is set"))
        else:
            checks.append(Check(name, False, f"{provider.key} is not set", needed=False))
    return checks


def _provider(prefix: str, key: str) -> Check:
    """Check which models a provider lists for the key that is set."""
    from tunepoint.models.openai import OpenAIEndpoint

    name = prefix.removesuffix("/")
    try:
        with closing(OpenAIEndpoint(f"{prefix}any", timeout=10.0, attempts=1)) as endpoint:
            models = endpoint.models()
    except ModelError as error:
        return Check(name, False, f"{key}, but {error}", needed=False)
    return Check(name, True, f"{key}; {len(models)} models, such as {prefix}{models[0]}", needed=False)


def _servers(ports: Sequence[int]) -> list[Check]:
    """Check for servers of models on this machine, and which of their models answer."""
    listening = [port for port in ports if _listens(port)]
    if not listening:
        numbers = ", ".join(map(str, ports))
        return [Check("local servers", False, f"none on the ports {numbers}", needed=False)]
    return [check for port in listening for check in _server(f"http://127.0.0.1:{port}/v1")]


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(0.5)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _server(url: str) -> list[Check]:
    """Check the models of a server, each with one short question."""
    from tunepoint.models.openai import OpenAIEndpoint

    lister = OpenAIEndpoint(f"{url}#any", timeout=5.0, attempts=1)
    try:
        models = lister.models()
    except ModelError as error:
        return [Check(url, False, f"not an OpenAI-compatible server: {error}", needed=False)]
    finally:
        lister.close()
    checks = [_answers(f"{url}#{model}") for model in models[:MAX_ASKED_MODELS]]
    if len(models) > MAX_ASKED_MODELS or not models:
        checks.append(Check(url, bool(models), f"{len(models)} models in all", needed=False))
    return checks


def _answers(name: str) -> Check:
    """Check whether a model answers, and how fast."""
    from tunepoint.models.chat import Message
    from tunepoint.models.endpoints import Completion, Request, allow_all
    from tunepoint.models.openai import OpenAIEndpoint

    endpoint = OpenAIEndpoint(name, timeout=60.0, attempts=1)
    arrived: dict[int, Completion] = {}
    try:
        request = Request((Message("user", "Reply with the word ok."),), max_output_tokens=8)
        endpoint.complete([request], arrived.__setitem__, allow_all)
    except ModelError as error:
        return Check(name, False, str(error), needed=False)
    finally:
        endpoint.close()
    completion = arrived[0]
    # An answer cut at 8 tokens is an error too, but it shows that the model answers.
    if completion.error is not None and not completion.usage.output_tokens:
        return Check(name, False, completion.error, needed=False)
    return Check(name, True, f"answers in {completion.usage.seconds or 0.0:.1f} s", needed=False)

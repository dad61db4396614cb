"""A language model in a GGUF file, run by llama.cpp in this process.

Each core has a server of its own, with one thread: threads that share a model wait for each other in
busy loops, which beside other work costs more than it gains. The servers map the same file, so its
weights are in memory once. A server keeps the states of its last prompts, so a prefix that prompts share
is computed once, also where several ways of prompting take turns.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunepoint.errors import MissingExtra, ModelError
from tunepoint.files.machine import cores, free_memory
from tunepoint.models.abilities import refusal_words
from tunepoint.models.chat import Usage
from tunepoint.models.chat_completions import TransientFault, read_completion
from tunepoint.models.endpoints import CUT_OFF, Allow, Completion, Done, Request
from tunepoint.models.gguf.grammar import choice_grammar
from tunepoint.models.gguf.metadata import FileFacts, read_facts

if TYPE_CHECKING:
    import xllamacpp

MAX_SERVERS = 4
"""More would need more memory than they save time; their threads share the cores beyond that."""
MAX_CONTEXT = 8_192
"""Tokens of prompt and answer; a model of a smaller context has its own."""
ALTERNATIVES = 200
"""Tokens whose probabilities a label's is compared with; the small models spread theirs widely."""
BUFFER_BYTES = 150_000_000
"""Of a server beside weights and context, measured."""
KEPT_STATES_MIB = 512
"""Memory of a server for the states of earlier prompts, if so much is free: a dozen prompts with 24
demonstrations and a model of half a billion parameters."""
SAME_PROMPT_SHARE = 0.8
"""Of a prompt that begins like the one before: below it, the state before is kept beside the new one. By
default llama.cpp overwrites it where half is the same, as in prompts with 12 and with 24 demonstrations."""
QUIET = -1
"""Verbosity at which llama.cpp writes nothing."""
NEVER_BUSY = 0
"""Share of its waiting, in percent, that a thread spends in a busy loop."""
SAMPLING: Mapping[str, float] = {"top_k": 40, "top_p": 0.95, "min_p": 0.05}
"""Of samples at a temperature above 0; llama.cpp's own defaults, named because they are part of a result."""


class GgufEndpoint:
    """Requests to a model in a file; the weights are loaded at the first one."""

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        adapter: Path | None = None,
        context: int = MAX_CONTEXT,
        processors: int | None = None,
    ) -> None:
        """Read what the file says of itself; nothing is loaded yet.

        Args:
            name: of the model, as usage reports it.
            path: GGUF file.
            adapter: GGUF file of a LoRA adapter that is applied to it.
            context: tokens of prompt and answer, at most.
            processors: cores to use; all that this process may use if None.

        Raises:
            ModelError: there is no such file, it is no GGUF file, or it has no chat template.
            MissingExtra: llama.cpp is not installed.

        """
        self.name, self.path, self.adapter = name, path, adapter
        self.facts: FileFacts = read_facts(name, path)
        self.context = min(context, self.facts.context)
        available = processors or cores()
        self.servers = min(available, MAX_SERVERS)
        self.threads = available // self.servers
        self._idle: queue.SimpleQueue[xllamacpp.Server] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        _import_runtime(name)

    @property
    def parameters(self) -> int:
        """Numbers in the model."""
        return self.facts.parameters

    @property
    def memory_bytes(self) -> int:
        """Memory that all servers need together, roughly; the states of earlier prompts come on top."""
        state = self.context * self.facts.state_bytes
        return self.facts.file_bytes + self.servers * (state + BUFFER_BYTES)

    # -- the contract ----------------------------------------------------------------------

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests, as many at a time as there are servers; see `Endpoint`."""
        if not requests:
            return
        pool, clock = self._open(), ProcessorClock()
        waiting = list(range(len(requests)))[::-1]
        running: dict[Future[Completion], int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.servers:
                    position = waiting.pop()
                    allow(requests[position])
                    running[pool.submit(self._answer, requests[position])] = position
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    done(running.pop(future), _with_core_seconds(future.result(), clock.lap()))
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """Free the memory."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
            self._idle = queue.SimpleQueue()

    # -- loading ---------------------------------------------------------------------------

    def _open(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                free = free_memory()
                if free is not None and free < self.memory_bytes:
                    raise ModelError(
                        f"{self.name} needs about {self.memory_bytes / 1e9:.1f} GB of memory, and "
                        f"{free / 1e9:.1f} GB are free"
                    )
                kept = self._kept_states_mib(free)
                for _ in range(self.servers):
                    self._idle.put(self._start(kept))
                self._pool = ThreadPoolExecutor(self.servers, "llama.cpp")
            return self._pool

    def _kept_states_mib(self, free: int | None) -> int:
        """Return the memory of a server for earlier prompts: at most half of what is left."""
        if free is None:
            return KEPT_STATES_MIB
        return min(KEPT_STATES_MIB, (free - self.memory_bytes) // 2 // self.servers // 2**20)

    def _start(self, kept_states_mib: int) -> xllamacpp.Server:
        runtime = _import_runtime(self.name)
        settings = runtime.CommonParams()
        settings.model.path = str(self.path)
        settings.n_ctx, settings.n_parallel = self.context, 1
        for threads in (settings.cpuparams, settings.cpuparams_batch):
            threads.n_threads, threads.poll = self.threads, NEVER_BUSY
        settings.verbosity = QUIET
        settings.no_extra_bufts = True  # weights as they are in the file: repacked copies were slower
        settings.slot_prompt_similarity = SAME_PROMPT_SHARE
        settings.cache_ram_mib = kept_states_mib  # up to 8 GB by default
        settings.endpoint_slots = settings.ui = False
        if self.adapter is not None:
            settings.lora_adapters = [runtime.CommonAdapterLoraInfo(str(self.adapter))]
        settings.use_jinja = True  # the file's own chat template, whatever is in it
        try:
            return runtime.Server(settings)
        except RuntimeError as error:
            raise ModelError(f"{self.name}: llama.cpp cannot load {self.path} ({error})") from None

    # -- one request -----------------------------------------------------------------------

    def _answer(self, request: Request) -> Completion:
        server = self._idle.get()
        started = time.perf_counter()
        try:
            reply = server.handle_chat_completions(self._body(request))
        finally:
            self._idle.put(server)
        return self._completion(reply, request, time.perf_counter() - started)

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
            "max_tokens": request.max_output_tokens,
            "temperature": request.temperature,
            "seed": request.sample,
            "cache_prompt": True,
            **SAMPLING,
        }
        if request.labels:
            body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        if request.choices:
            body["grammar"] = choice_grammar(request.choices)
        elif request.schema is not None:
            schema = {"name": "answer", "schema": dict(request.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _completion(self, reply: Any, request: Request, seconds: float) -> Completion:
        reply = json.loads(reply) if isinstance(reply, str) else reply
        error = reply.get("error") if isinstance(reply, Mapping) else None
        if error:
            words = refusal_words(error)
            if isinstance(error, Mapping) and error.get("type") == "exceed_context_size_error":
                words = (
                    f"its {error.get('n_prompt_tokens')} tokens leave no room in a context of {self.context}"
                )
            return Completion("", Usage(self.name), error=words or "llama.cpp gave no reason")
        try:
            completion = read_completion(self.name, reply, seconds, request)
        except (TransientFault, ValueError) as fault:
            return Completion("", Usage(self.name), error=str(fault), lasting=False)
        text = completion.text.strip()
        cut = _finish_reason(reply) == "length" and not text
        return replace(completion, text=text, error=CUT_OFF if cut else completion.error)


class ProcessorClock:
    """Laps of this process's processor time.

    A lap ends with an answer. Answers that are computed side by side share their laps, so one lap says
    little of one answer, and their mean is the mean of the answers, whatever else the machine does.
    """

    def __init__(self) -> None:
        self.last = time.process_time()

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        now = time.process_time()
        self.last, passed = now, now - self.last
        return passed


def _with_core_seconds(completion: Completion, seconds: float) -> Completion:
    return replace(completion, usage=replace(completion.usage, core_seconds=seconds))


def _finish_reason(reply: Mapping[str, Any]) -> Any:
    return reply["choices"][0].get("finish_reason")


def _import_runtime(name: str) -> Any:
    """Import llama.cpp.

    Raises:
        MissingExtra: it is not installed.

    """
    try:
        import xllamacpp
    except ImportError:
        raise MissingExtra(f"{name} needs xllamacpp", "llm") from None
    return xllamacpp

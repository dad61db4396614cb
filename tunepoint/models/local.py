"""A causal language model in this process, from a directory or the name of one on a hub."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from tunepoint.errors import ModelError
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import Allow, Completion, Done, Request
from tunepoint.models.providers import LOCAL_PREFIX

BATCH_SIZE = 8
MIN_OUTPUT_TOKENS = 16
"""Tokens of output that there must be room for."""


class LocalEndpoint:
    """Requests answered in batches, with the model's own chat template.

    A request with `choices` gets one of them and nothing else: at every step only tokens that
    go on to a choice are allowed, and the confidence is the probability among those.
    """

    def __init__(self, name: str, folder: Path = Path(), *, batch: int = BATCH_SIZE) -> None:
        """Load the model.

        Args:
            name: `local:DIRECTORY` or `local:HUB-NAME`.
            folder: where relative directories start.
            batch: requests that are answered together.

        Raises:
            ModelError: nothing there that can be loaded, or it has no chat template.

        """
        path = folder / name.removeprefix(LOCAL_PREFIX)
        where = str(path) if path.is_dir() else name.removeprefix(LOCAL_PREFIX)
        if not path.is_dir() and "/" not in where:
            raise ModelError(
                f"{name}: {path} is no directory; name one with config.json, weights and a tokenizer, or a "
                "model of the hub as local:OWNER/NAME"
            )
        disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every retry
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(where, padding_side="left")
            model = cast("Any", AutoModelForCausalLM.from_pretrained(where, dtype="auto"))
        except Exception as error:  # whatever the files bring up
            said = str(error).strip().split("\n")[0][:200]
            raise ModelError(
                f"{name}: cannot be loaded from {where} ({type(error).__name__}: {said}); a directory with "
                "config.json, weights and a tokenizer is needed, or a name that the hub knows"
            ) from None
        if not tokenizer.chat_template:
            raise ModelError(f"{name}: its tokenizer has no chat template; take an instruction-tuned model")
        self._use(name, model.to(_device()), tokenizer, batch)

    @classmethod
    def of(cls, name: str, model: Any, tokenizer: Any, *, batch: int = BATCH_SIZE) -> LocalEndpoint:
        """An endpoint of a model that is loaded already, on its device."""
        found = cls.__new__(cls)
        tokenizer.padding_side = "left"
        found._use(name, model, tokenizer, batch)
        return found

    def _use(self, name: str, model: Any, tokenizer: Any, batch: int) -> None:
        self.name, self.batch = name, batch
        self._lock = threading.Lock()
        self.model, self.tokenizer = model.eval(), tokenizer
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._choices: dict[str, list[int]] = {}
        self.device = model.device
        self.context = int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 30)

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests, those of one form and of like length together."""
        tokens = [self._tokens(request) for request in requests]
        order = []
        for position, request in enumerate(requests):
            least = max(map(len, self._ends(request)), default=min(request.max_output_tokens, MIN_OUTPUT_TOKENS))
            if self.context - len(tokens[position]) < least:
                why = f"its {len(tokens[position])} tokens leave no room in a context of {self.context}"
                done(position, Completion("", Usage(self.name), error=why))
            else:
                order.append(position)

        def form(position: int) -> tuple[Any, ...]:
            request = requests[position]
            return request.choices, request.max_output_tokens, request.temperature, request.sample

        order.sort(key=lambda position: (form(position), len(tokens[position])))
        for _, group in groupby(order, key=form):
            for some in _parts(list(group), self.batch):
                for position in some:
                    allow(requests[position])
                with self._lock:  # torch has one generator of random numbers for all threads
                    completions = self._answer([requests[i] for i in some], [tokens[i] for i in some])
                for position, completion in zip(some, completions, strict=True):
                    done(position, completion)

    def close(self) -> None:
        """Nothing is open."""

    def _tokens(self, request: Request) -> list[int]:
        turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def _ends(self, request: Request) -> list[list[int]]:
        """The tokens of each choice, with the one that ends it."""
        end = self.tokenizer.eos_token_id
        for choice in request.choices:
            if choice not in self._choices:
                found = self.tokenizer(choice, add_special_tokens=False)["input_ids"]
                self._choices[choice] = [*found, end]
        return [self._choices[choice] for choice in request.choices]

    @torch.inference_mode()
    def _answer(self, requests: Sequence[Request], tokens: Sequence[list[int]]) -> list[Completion]:
        """A batch of requests that differ in their messages only."""
        request, started = requests[0], time.perf_counter()
        padded = self.tokenizer.pad({"input_ids": list(tokens)}, return_tensors="pt").to(self.device)
        width = int(padded["input_ids"].shape[1])
        how: dict[str, Any] = {"max_new_tokens": min(request.max_output_tokens, self.context - width)}
        if request.temperature > 0:
            how |= {"do_sample": True, "temperature": request.temperature, "top_k": 0, "top_p": 1.0}
        else:
            how |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if request.choices:
            ends = self._ends(request)
            how["max_new_tokens"] = max(map(len, ends))
            how["prefix_allowed_tokens_fn"] = _only(ends, width, self.tokenizer.eos_token_id)
        with torch.random.fork_rng():
            torch.manual_seed(request.sample)
            out = self.model.generate(
                **padded,
                **how,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                return_dict_in_generate=True,
                output_scores=True,
            )
        seconds = time.perf_counter() - started if len(requests) == 1 else None
        return [
            self._completion(row, [score[i] for score in out.scores], request, len(tokens[i]), seconds)
            for i, row in enumerate(out.sequences[:, width:])
        ]

    def _completion(
        self, row: Any, scores: Sequence[Any], request: Request, given: int, seconds: float | None
    ) -> Completion:
        written = [int(token) for token in row]
        ended = self.tokenizer.eos_token_id in written
        if ended:
            written = written[: written.index(self.tokenizer.eos_token_id) + 1]
        sure = sum(
            float(torch.log_softmax(score.float(), -1)[token])
            for score, token in zip(scores, written, strict=False)
        )
        text = self.tokenizer.decode(written, skip_special_tokens=True).strip()
        usage = Usage(self.name, given, 0, len(written), seconds=seconds)
        error = None
        if not ended and not text:
            error = "cut off before an answer: all output tokens were spent"
        confidence = min(1.0, float(torch.tensor(sure).exp())) if request.choices else None
        return Completion(text, usage, confidence=confidence, error=error)


def _only(ends: Sequence[list[int]], width: int, end: int) -> Callable[[int, Any], list[int]]:
    """Which tokens may follow: those that go on to one of the sequences."""

    def allowed(_: int, row: Any) -> list[int]:
        so_far = [int(token) for token in row[width:]]
        size = len(so_far)
        return sorted({s[size] for s in ends if len(s) > size and s[:size] == so_far}) or [end]

    return allowed


def _parts(positions: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def _device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"

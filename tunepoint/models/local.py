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
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.utils.logging import disable_progress_bar

from tunepoint.errors import ModelError
from tunepoint.models.chat import Usage
from tunepoint.models.endpoints import CUT_OFF, Allow, Completion, Done, Request
from tunepoint.models.providers import LOCAL_PREFIX

BATCH_SIZE = 8
MIN_OUTPUT_TOKENS = 16
"""Room that a prompt must leave in the context for a free answer."""
UNLIMITED_CONTEXT = 1 << 30
"""Context of a model whose configuration names no limit."""


class LocalEndpoint:
    """Requests answered in batches, with the model's own chat template.

    A request with `choices` gets one of them and nothing else: at every step only tokens that
    continue a choice are allowed, and the confidence is the probability among those. Generation
    stops where one choice is left, whose other tokens have the probability 1.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, *, batch_size: int = BATCH_SIZE) -> None:
        """Use a loaded model, on the device where it is.

        Args:
            name: of the model, as usage reports it.
            model: a causal language model of transformers.
            tokenizer: its tokenizer, with a chat template.
            batch_size: requests that are answered together.

        """
        # Batches are padded on the left, so that every prompt ends where generation begins.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.device = model.device
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or UNLIMITED_CONTEXT)
        self._choice_tokens: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, name: str, folder: Path = Path(), *, batch_size: int = BATCH_SIZE) -> LocalEndpoint:
        """Load a model and move it to the fastest device of this machine.

        Args:
            name: `local:DIRECTORY` or `local:HUB-NAME`.
            folder: where relative directories start.
            batch_size: requests that are answered together.

        Raises:
            ModelError: the model cannot be loaded, or its tokenizer has no chat template.

        """
        path = folder / name.removeprefix(LOCAL_PREFIX)
        source = str(path) if path.is_dir() else name.removeprefix(LOCAL_PREFIX)
        if not path.is_dir() and "/" not in source:
            raise ModelError(
                f"{name}: there is no directory {path}; give one with config.json, weights and a tokenizer, "
                "or a model of the hub as local:OWNER/NAME"
            )
        model, tokenizer = _load(name, source)
        if not tokenizer.chat_template:
            raise ModelError(f"{name}: its tokenizer has no chat template; use an instruction-tuned model")
        return cls(name, model.to(_device()), tokenizer, batch_size=batch_size)

    @property
    def parameters(self) -> int:
        """Numbers in the model."""
        return int(self.model.num_parameters())

    def complete(self, requests: Sequence[Request], done: Done, allow: Allow) -> None:
        """Complete all requests, in batches of the same settings and of similar length."""
        tokens = [self._prompt_tokens(request) for request in requests]
        fitting = []
        for position, request in enumerate(requests):
            if self.context - len(tokens[position]) < self._least_output(request):
                error = f"its {len(tokens[position])} tokens leave no room in a context of {self.context}"
                done(position, Completion("", Usage(self.name), error=error))
            else:
                fitting.append(position)

        def settings(position: int) -> tuple[Any, ...]:
            request = requests[position]
            return request.choices, request.max_output_tokens, request.temperature, request.sample

        fitting.sort(key=lambda position: (settings(position), len(tokens[position])))
        for _, group in groupby(fitting, key=settings):
            for batch in _batches(list(group), self.batch_size):
                for position in batch:
                    allow(requests[position])
                with self._lock:  # torch has one random generator for all threads
                    completions = self._answer([requests[i] for i in batch], [tokens[i] for i in batch])
                for position, completion in zip(batch, completions, strict=True):
                    done(position, completion)

    def close(self) -> None:
        """Do nothing: there is no connection to close."""

    def _least_output(self, request: Request) -> int:
        """Return the output tokens without which an answer makes no sense."""
        if request.choices:
            return max(map(len, self._choice_sequences(request)))
        return min(request.max_output_tokens, MIN_OUTPUT_TOKENS)

    def _prompt_tokens(self, request: Request) -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in request.messages]
        text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        # The chat template has written the special tokens already.
        tokens: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tokens

    def _choice_sequences(self, request: Request) -> list[list[int]]:
        """Return the tokens of each choice, with the one that ends it."""
        for choice in request.choices:
            if choice not in self._choice_tokens:
                tokens = self.tokenizer(choice, add_special_tokens=False)["input_ids"]
                self._choice_tokens[choice] = [*tokens, self.tokenizer.eos_token_id]
        return [self._choice_tokens[choice] for choice in request.choices]

    @torch.inference_mode()
    def _answer(self, requests: Sequence[Request], tokens: Sequence[list[int]]) -> list[Completion]:
        """Answer a batch of requests that differ in their messages only."""
        request, started = requests[0], time.perf_counter()
        padded = self.tokenizer.pad({"input_ids": list(tokens)}, return_tensors="pt").to(self.device)
        width = int(padded["input_ids"].shape[1])
        with torch.random.fork_rng():
            torch.manual_seed(request.sample)
            output = self.model.generate(
                **padded,
                **self._generation_settings(request, width),
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                return_dict_in_generate=True,
                output_scores=True,
            )
        seconds = time.perf_counter() - started if len(requests) == 1 else None
        return [
            self._completion(row, [score[i] for score in output.scores], request, len(tokens[i]), seconds)
            for i, row in enumerate(output.sequences[:, width:])
        ]

    def _generation_settings(self, request: Request, width: int) -> dict[str, Any]:
        """Return the arguments of `generate`; all of them, for the model's own defaults would fill gaps."""
        settings: dict[str, Any] = {"max_new_tokens": min(request.max_output_tokens, self.context - width)}
        if request.temperature > 0:
            settings |= {"do_sample": True, "temperature": request.temperature, "top_k": 0, "top_p": 1.0}
        else:
            settings |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if request.choices:
            sequences = self._choice_sequences(request)
            settings["max_new_tokens"] = max(map(len, sequences))
            settings["prefix_allowed_tokens_fn"] = _allow_only(sequences, width, self.tokenizer.eos_token_id)
            settings["stopping_criteria"] = StoppingCriteriaList([_Decided(sequences, width)])
        return settings

    def _completion(
        self, row: Any, scores: Sequence[Any], request: Request, input_tokens: int, seconds: float | None
    ) -> Completion:
        """Read one row of generated tokens, with the scores of each step."""
        tokens = [int(token) for token in row]
        ended = self.tokenizer.eos_token_id in tokens
        if ended:
            # Rows that end early are padded to the longest of the batch.
            tokens = tokens[: tokens.index(self.tokenizer.eos_token_id) + 1]
        generated = tokens
        if request.choices:
            generated, tokens = _choice_of(tokens, self._choice_sequences(request))
            ended = True
        log_probability = sum(
            float(torch.log_softmax(score.float(), -1)[token])
            for score, token in zip(scores, generated, strict=False)
        )
        text = self.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        usage = Usage(self.name, input_tokens, 0, len(tokens), seconds=seconds)
        error = CUT_OFF if not ended and not text else None
        # Without choices the probability is that of one text among all texts, and says nothing.
        confidence = min(1.0, float(torch.tensor(log_probability).exp())) if request.choices else None
        return Completion(text, usage, confidence=confidence, error=error)


def _load(name: str, source: str) -> tuple[Any, Any]:
    """Return the model and its tokenizer.

    Raises:
        ModelError: one of them cannot be loaded.

    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports every retry
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, padding_side="left")
        model = cast("Any", AutoModelForCausalLM.from_pretrained(source, dtype="auto"))
    except Exception as error:  # transformers raises whatever the files bring up
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(
            f"{name}: cannot be loaded from {source} ({type(error).__name__}: {reason}); give a directory "
            "with config.json, weights and a tokenizer, or a name that the hub knows"
        ) from None
    return model, tokenizer


class _Decided(StoppingCriteria):
    """Stops a row where what is written leaves one choice."""

    def __init__(self, sequences: Sequence[list[int]], width: int) -> None:
        self.sequences = sequences
        self.width = width

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """(rows,) whether each row is decided."""
        rows = input_ids[:, self.width :].tolist()
        decided = [len(_continued_by(row, self.sequences)) <= 1 for row in rows]
        return torch.tensor(decided, device=input_ids.device)


def _continued_by(tokens: list[int], sequences: Sequence[list[int]]) -> list[list[int]]:
    return [sequence for sequence in sequences if sequence[: len(tokens)] == tokens]


def _choice_of(tokens: list[int], sequences: Sequence[list[int]]) -> tuple[list[int], list[int]]:
    """Return the tokens of a row that the model generated, and all those of the choice that they begin.

    Behind them the row is padded.
    """
    size = 0
    while size < len(tokens) and _continued_by(tokens[: size + 1], sequences):
        size += 1
    generated = tokens[:size]
    return generated, _continued_by(generated, sequences)[0]


def _allow_only(sequences: Sequence[list[int]], width: int, end: int) -> Callable[[int, Any], list[int]]:
    """Return a function that allows the tokens that continue one of the sequences."""

    def allowed(_: int, row: Any) -> list[int]:
        written = [int(token) for token in row[width:]]
        size = len(written)
        continuations = {s[size] for s in _continued_by(written, sequences) if len(s) > size}
        return sorted(continuations) or [end]

    return allowed


def _batches(positions: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def _device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"

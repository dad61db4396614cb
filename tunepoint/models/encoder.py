"""The embedded default: all-MiniLM-L6-v2, in process, on any machine.

The encoder reads a `Prompt` as structure: label names, their descriptions and the
demonstrations become vectors, and the label nearest to the input is the answer. Its
weights stay fixed under prompting. It cannot reason in steps or write free text.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from tunepoint.errors import ModelError
from tunepoint.models.chat import Prompt, Reply, Usage
from tunepoint.models.encoder_weights import check_weights, find_weights
from tunepoint.models.nearest_label import Vectors, label_probabilities

EmbedTokens = Callable[[Sequence[Sequence[int]]], Vectors]
"""Token numbers of some texts -> their (n, width) unit vectors."""

ENCODER_NAME = "embedded:minilm"
MAX_TOKENS = 256
"""Longer inputs are cut here, as the published model does."""
BATCH_SIZE = 32
SHARED_LAYERS = 4
"""Lowest layers whose states are cached, for all encoders that leave them frozen."""
MAX_CACHED_TOKENS = 400_000
"""1.5 kB each, 600 MB in all; states that do not fit are computed when they are needed."""


class SharedStates:
    """States after the lowest layers, shared by all encoders that were tuned above them."""

    def __init__(self) -> None:
        self.states: dict[str, torch.Tensor] = {}
        self.tokens = 0

    def add(self, text: str, state: torch.Tensor) -> None:
        """Keep a state while there is room."""
        if self.tokens + len(state) <= MAX_CACHED_TOKENS:
            self.states[text] = state
            self.tokens += len(state)

    def clear(self) -> None:
        """Forget all states."""
        self.states.clear()
        self.tokens = 0


class Encoder:
    """Sentences to unit vectors, and prompts to labels; several threads may use it at once.

    Attributes:
        layers: the transformer layers, lowest first; a tuned encoder shares the lower
            ones with the encoder it was tuned from.
        runtime: computes the vectors of new texts in place of torch, with the same weights;
            `embed_tokens` does if None.

    """

    remote = False
    concurrent = True

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        embeddings: torch.nn.Module,
        layers: Sequence[torch.nn.Module],
        shared: SharedStates | None = None,
    ) -> None:
        self.name = name
        self.layers = list(layers)
        self.tokenizer = tokenizer
        self.embeddings = embeddings
        self.runtime: EmbedTokens | None = None
        self._cache: dict[str, NDArray[np.float32]] = {}
        self._thread = threading.local()
        """Vectors that one answer of the current thread needs twice."""
        self._shared = shared or SharedStates()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process; the states of the lowest layers go along."""
        own = {"_thread", "_cache", "runtime"}
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _thread=threading.local(), _cache={}, runtime=None)

    @classmethod
    def load(cls, folder: Path | None = None) -> Encoder:
        """Load and verify the published weights.

        Raises:
            ModelError: the weights are missing or altered.

        """
        from transformers import BertModel

        folder = folder or find_weights()
        check_weights(folder)
        with _quiet_loading():
            model = BertModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
        model.train(False)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # The file pads every text to 128 tokens; batches of similar length need almost no padding.
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return cls(ENCODER_NAME, tokenizer, model.embeddings, list(model.encoder.layer))

    def tunable_copy(self, frozen: int) -> Encoder:
        """Return an encoder that shares the `frozen` lowest layers and owns copies of the others."""
        upper = [copy.deepcopy(layer) for layer in self.layers[frozen:]]
        layers = [*self.layers[:frozen], *upper]
        shared = self._shared if frozen >= SHARED_LAYERS else None
        return Encoder(f"{self.name} tuned", self.tokenizer, self.embeddings, layers, shared)

    # -- tokens --------------------------------------------------------------------------

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token numbers of each text, special tokens included."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    def encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Return the tokens of each text with the words and positions behind them; nothing is cut."""
        return list(self._untruncated.encode_batch(list(texts)))

    @cached_property
    def _untruncated(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.no_truncation()
        return tokenizer

    # -- vectors -------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Numbers in a vector, and in the state of a token."""
        return int(next(self.layers[0].parameters()).shape[-1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the (n, width) unit vectors of texts, from the cache where they are in it."""
        cache, held = self._cache, getattr(self._thread, "vectors", {})
        missing = [text for text in dict.fromkeys(texts) if text not in cache and text not in held]
        computed = dict(zip(missing, self._compute(missing), strict=True)) if missing else {}
        vectors = ChainMap(computed, held, cache)
        return np.stack([vectors[text] for text in texts]) if texts else np.zeros((0, 0), np.float32)

    def cache_vectors(self, texts: Sequence[str]) -> None:
        """Keep the vectors of texts that return: label names, demonstrations, validation inputs."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        self._cache.update(zip(missing, self._compute(missing), strict=True))

    @contextlib.contextmanager
    def cached_vectors(self, texts: Sequence[str]) -> Iterator[Vectors]:
        """Keep vectors while this thread answers, for inputs that one answer reads twice."""
        vectors = self.embed(texts)
        self._thread.vectors = dict(zip(texts, vectors, strict=True))
        try:
            yield vectors
        finally:
            del self._thread.vectors

    def cache_states(self, texts: Sequence[str]) -> None:
        """Keep the lower states of texts that this encoder and its tuned copies meet again."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._shared.states]
        for text, state in zip(missing, self.hidden_states(missing, SHARED_LAYERS), strict=True):
            self._shared.add(text, state)

    def clear_states(self) -> None:
        """Forget the lower states, of all encoders that share them."""
        self._shared.clear()

    def _compute(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Compute vectors, from the lower states where they are cached: a third of the work."""
        from_states = [text for text in texts if text in self._shared.states]
        from_tokens = [text for text in texts if text not in self._shared.states]
        vectors: dict[str, NDArray[np.float32]] = {}
        tokens = self.tokens(from_tokens)
        embed_tokens = self.runtime or self.embed_tokens
        for batch in batch_by_length([len(text) for text in tokens], BATCH_SIZE):
            rows = embed_tokens([tokens[i] for i in batch])
            vectors.update((from_tokens[i], row) for i, row in zip(batch, rows, strict=True))
        states = [self._shared.states[text] for text in from_states]
        with torch.inference_mode():
            for batch in batch_by_length([len(state) for state in states], BATCH_SIZE):
                state, mask = pad_states([states[i] for i in batch])
                rows = self.pool(state, mask, SHARED_LAYERS).numpy()
                vectors.update((from_states[i], row) for i, row in zip(batch, rows, strict=True))
        return [vectors[text] for text in texts]

    # -- layers --------------------------------------------------------------------------

    def embed_tokens(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """Return the (n, width) unit vectors of some texts, all in one batch."""
        with torch.inference_mode():
            state, mask = self.input_states(tokens)
            return np.asarray(self.pool(state, mask, 0).numpy())

    def hidden_states(self, texts: Sequence[str], depth: int) -> list[torch.Tensor]:
        """Return the states after the `depth` lowest layers, one (tokens, width) tensor a text."""
        cached = self._shared.states if depth == SHARED_LAYERS else {}
        states = {text: cached[text] for text in texts if text in cached}
        missing = [text for text in dict.fromkeys(texts) if text not in states]
        tokens = self.tokens(missing)
        with torch.inference_mode():
            for batch in batch_by_length([len(text) for text in tokens], BATCH_SIZE):
                state, mask = self.input_states([tokens[i] for i in batch])
                state = self.run_layers(state, mask, 0, depth)
                for row, i in enumerate(batch):
                    # A clone: a view would keep the whole padded batch in memory.
                    states[missing[i]] = state[row, : len(tokens[i])].clone()
        return [states[text] for text in texts]

    def input_states(self, tokens: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the (batch, tokens, width) states below the first layer, and their mask."""
        longest = max(len(text) for text in tokens)
        ids = torch.zeros(len(tokens), longest, dtype=torch.long)
        mask = torch.zeros(len(tokens), longest)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1.0
        return self.embeddings(input_ids=ids), mask

    def run_layers(self, state: torch.Tensor, mask: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return the states after the layers from `start` up to `stop`."""
        # Added to the attention's logits: padding gets the lowest number, so no weight.
        bias = ((1 - mask) * torch.finfo(torch.float32).min)[:, None, None, :]
        for layer in self.layers[start:stop]:
            state = layer(state, bias)
        return state

    def pool(self, state: torch.Tensor, mask: torch.Tensor, start: int) -> torch.Tensor:
        """Return the (batch, width) unit vectors of states that have passed `start` layers.

        The mean over the tokens, as the published model pools (Reimers and Gurevych 2019).
        """
        state = self.run_layers(state, mask, start, len(self.layers))
        summed = (state * mask[..., None]).sum(dim=1)
        mean = summed / mask.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(mean.float(), dim=-1)

    # -- prompts -------------------------------------------------------------------------

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Return the most probable label of each prompt; see `probabilities`."""
        vectors = self.embed([prompt.input for prompt in prompts])
        return [
            self.reply(prompt, self.probabilities(prompt, vector))
            for prompt, vector in zip(prompts, vectors, strict=True)
        ]

    def reply(self, prompt: Prompt, probabilities: Vectors) -> Reply:
        """Return the reply that names the most probable label."""
        best = int(probabilities.argmax())
        label = prompt.labels[best]
        return Reply(label, label, Usage(self.name), confidence=float(probabilities[best]))

    def probabilities(self, prompt: Prompt, vector: Vectors) -> Vectors:
        """Return the (labels,) probabilities of a prompt's labels; see `label_probabilities`.

        Args:
            prompt: with labels.
            vector: (width,) unit vector of the prompt's input.

        Raises:
            ModelError: the prompt has no labels.

        """
        if not prompt.labels:
            raise ModelError(f"{self.name} needs labels to choose from: it cannot write text")
        return label_probabilities(self, prompt, vector)


def pad_states(states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the states of several texts as one (batch, tokens, width) tensor, and its mask."""
    state = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    lengths = torch.tensor([len(text) for text in states])
    return state, (torch.arange(state.shape[1]) < lengths[:, None]).float()


def batch_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return positions in batches of `size`, of similar length, so that little is padded."""
    order = np.argsort(np.asarray(lengths), kind="stable").tolist()
    return [order[i : i + size] for i in range(0, len(order), size)]


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """Silence the load report and progress bars: unused pooler weights are not the user's concern."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # its functions are not annotated
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def use_one_thread() -> None:
    """Let torch compute on one thread here, and in threads that start later: torch passes the number on."""
    torch.set_num_threads(1)

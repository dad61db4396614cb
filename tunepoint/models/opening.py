"""The chat models of a task, opened, recorded and paid for; closed when the study ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tunepoint.errors import MissingExtra, ModelError
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.embedded import CPU_TORCH
from tunepoint.models.endpoints import Endpoint, TextModel
from tunepoint.models.prices import UNKNOWN_PRICE, CallPrice, call_price, missing_price, project_price
from tunepoint.models.providers import LOCAL_PREFIX
from tunepoint.models.recording import CallRecording, RecordedEndpoint

if TYPE_CHECKING:
    from tunepoint.models.local import LocalEndpoint
    from tunepoint.models.openai import Abilities, OpenAIEndpoint


@dataclass(frozen=True)
class NamedModel:
    """A chat model as the task names it."""

    name: str
    price: TokenPrice | None = None
    concurrency: int = 64
    folder: Path = Path()
    """Where relative directories of local models start."""


@dataclass(frozen=True)
class ChatModels:
    """Open chat models, in the order of the task."""

    chats: tuple[TextModel, ...]
    prices: dict[str, CallPrice]
    """Of those that cost money, by name."""
    proposer: TextModel | None = None
    """Who proposes better prompts."""
    judge: TextModel | None = None
    """Who grades answers."""
    tuned: Callable[[str, Abilities], TextModel] | None = None
    """Opens a model that was tuned in this study, under the same recording and cap."""
    _endpoints: Sequence[OpenAIEndpoint] = ()
    _recorded: Sequence[RecordedEndpoint] = ()

    def go_live(self, attempts: int) -> None:
        """From now on ask for every answer, so many times at most, and keep none: serving."""
        for endpoint in self._endpoints:
            endpoint.attempts = attempts
        for recorded in self._recorded:
            recorded.live = True

    def facts(self) -> dict[str, Any]:
        """What was found out about each model, for the manifest."""
        return {
            endpoint.name: {
                "abilities": asdict(endpoint.abilities) if endpoint.abilities else None,
                "asked_again": dict(endpoint.log),
                "price": self.prices[endpoint.name].source
                if endpoint.name in self.prices
                else "this machine",
                "price_checked": self._checked(endpoint.name),
            }
            for endpoint in self._endpoints
        }

    def _checked(self, name: str) -> str | None:
        """The day on which the price of a model was looked up."""
        price = self.prices.get(name)
        return None if price is None or price.checked is None else price.checked.isoformat()


def _hosted(model: NamedModel, abilities: Abilities | None = None) -> OpenAIEndpoint:
    from tunepoint.models.openai import OpenAIEndpoint

    return OpenAIEndpoint(model.name, concurrency=model.concurrency, abilities=abilities)


def _local(model: NamedModel) -> LocalEndpoint:
    try:
        from tunepoint.models.local import LocalEndpoint
    except ImportError as error:
        raise MissingExtra(f"{model.name} needs {error.name}", "tune", CPU_TORCH) from None
    return LocalEndpoint.load(model.name, model.folder)


class _Opening:
    """Models as they are opened; a stack closes them."""

    def __init__(
        self,
        stack: ExitStack,
        calls: CallRecording,
        metered: Callable[[Endpoint, CallPrice | None], Endpoint],
        replay: bool,
        own: Mapping[str, TokenPrice],
    ) -> None:
        self.stack, self.calls, self.metered, self.replay = stack, calls, metered, replay
        self.own = own
        self.prices: dict[str, CallPrice] = {}
        self.chats: dict[str, TextModel] = {}
        self.endpoints: list[OpenAIEndpoint] = []
        self.recorded: list[RecordedEndpoint] = []

    def add(self, model: NamedModel, abilities: Abilities | None = None, *, known: bool = False) -> TextModel:
        """Open a model, recorded and, where it is elsewhere, paid for.

        Args:
            known: it was trained already, and answers even if nobody knows its price.

        Raises:
            ModelError: nobody knows the price of its calls.

        """
        price = call_price(model.name, model.price or project_price(model.name, self.own))
        if price is not None and price.source == UNKNOWN_PRICE and not known:
            raise ModelError(missing_price(model.name, own=self.own))
        if price is not None:
            self.prices[model.name] = price
        local = model.name.startswith(LOCAL_PREFIX)
        endpoint: Endpoint | None = None
        if not self.replay and local:
            endpoint = _local(model)
        elif not self.replay:
            self.endpoints.append(_hosted(model, abilities))
            self.stack.callback(self.endpoints[-1].close)
            endpoint = self.metered(self.endpoints[-1], price)
        self.recorded.append(RecordedEndpoint(model.name, self.calls, endpoint))
        self.chats[model.name] = TextModel(self.recorded[-1], remote=not local)
        return self.chats[model.name]

    def tuned(self, name: str, abilities: Abilities) -> TextModel:
        """Open a model that was tuned in this study, once."""
        return self.chats[name] if name in self.chats else self.add(NamedModel(name), abilities, known=True)


@contextmanager
def open_models(
    named: Sequence[NamedModel],
    recording: Path,
    metered: Callable[[Endpoint, CallPrice | None], Endpoint],
    *,
    proposer: str | None = None,
    judge: NamedModel | None = None,
    replay: bool = False,
    tuning: bool = False,
    own: Mapping[str, TokenPrice] = MappingProxyType({}),
) -> Iterator[ChatModels]:
    """Open chat models for the time of a study.

    Args:
        recording: SQLite file of every call that was ever answered.
        metered: puts a spending cap around an endpoint.
        proposer: name of the model that proposes prompts; the first one if None.
        judge: the model that grades answers; None where none does.
        replay: answer from the recording alone; no key and no network is needed.
        tuning: whether models will be tuned at a provider, and asked there.
        own: prices of the project, for models that come without one.

    """
    others = [model for model in (judge, NamedModel(proposer) if proposer else None) if model]
    wanted = list({model.name: model for model in (*others, *named)}.values())
    if not wanted and not tuning:
        yield ChatModels((), {})
        return
    with ExitStack() as stack:
        calls = CallRecording(recording)
        stack.callback(calls.close)
        opening = _Opening(stack, calls, metered, replay, own)
        for model in wanted:
            opening.add(model)
        asked = tuple(opening.chats[model.name] for model in named)
        proposing = opening.chats[proposer] if proposer else next(iter(asked), None)
        grading = opening.chats[judge.name] if judge else None
        yield ChatModels(
            asked, opening.prices, proposing, grading, opening.tuned, opening.endpoints, opening.recorded
        )

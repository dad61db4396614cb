"""The chat models of a task, opened, recorded and paid for; closed when the study ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tunepoint.errors import MissingExtra, ModelError
from tunepoint.files.amounts import TokenPrice
from tunepoint.models.batch.endpoint import BatchedEndpoint
from tunepoint.models.batch.gathering import Batches
from tunepoint.models.batch.terms import batch_terms
from tunepoint.models.endpoints import Endpoint, TextModel
from tunepoint.models.gguf.catalog import known_model
from tunepoint.models.named_models import NamedModel, OtherMachines, open_here, open_hosted
from tunepoint.models.prices import UNKNOWN_PRICE, CallPrice, call_price, missing_price, project_price
from tunepoint.models.prompt_caches import prompt_cache
from tunepoint.models.providers import EMBEDDED_PREFIX, HERE_PREFIXES, VLLM_PREFIX
from tunepoint.models.recording import CallRecording, RecordedEndpoint
from tunepoint.models.replies import RepliesEndpoint, ReplyOrigin
from tunepoint.models.vllm import VllmServers

if TYPE_CHECKING:
    from tunepoint.models.abilities import Abilities
    from tunepoint.models.hosted_endpoint import HostedEndpoint

AddBudget = Callable[[Endpoint, CallPrice | None], Endpoint]
"""Puts the study's spending cap around an endpoint with this price."""


@dataclass(frozen=True)
class ChatModels:
    """Open chat models, in the order of the task."""

    chats: tuple[TextModel, ...]
    prices: dict[str, CallPrice]
    """By name, of the models that cost money."""
    proposer: TextModel | None = None
    """Proposes better prompts."""
    judge: TextModel | None = None
    """Grades answers."""
    tuned: Callable[[str, Abilities, str | None], TextModel] | None = None
    """Opens a model that was tuned in this study, under the same recording and cap."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Name of a model -> its number of parameters, where that is known."""
    batches: Batches | None = None
    """The batches by which some calls go; None where all are asked at once."""
    vllm: VllmServers = field(default_factory=VllmServers)
    """Servers of vLLM, reached or started when they are first asked."""
    _hosted: Sequence[HostedEndpoint] = ()
    _recorded: Sequence[RecordedEndpoint] = ()
    _replies: Sequence[RepliesEndpoint] = ()

    @property
    def reply_origins(self) -> dict[str, ReplyOrigin]:
        """Name of a model whose replies come from a file -> what they are of."""
        return {endpoint.name: endpoint.origin for endpoint in self._replies}

    @contextmanager
    def asking_at_once(self) -> Iterator[None]:
        """Send nothing by batch for a while: where each call depends on the last one, or is timed."""
        if self.batches is None:
            yield
            return
        with self.batches.asking_at_once():
            yield

    @contextmanager
    def recorded_only(self) -> Iterator[None]:
        """Make no call for a while: what is not recorded is an error."""
        for recorded in self._recorded:
            recorded.closed = True
        try:
            yield
        finally:
            for recorded in self._recorded:
                recorded.closed = False

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Ask for a while for what is recorded already, once."""
        for recorded in self._recorded:
            recorded.renewing = True
        try:
            yield
        finally:
            for recorded in self._recorded:
                recorded.renewing = False

    def gather(self, steps: Sequence[Callable[[], None]]) -> None:
        """Run steps; what they ask by batch goes out together. A step may be run several times."""
        if self.batches is not None:
            self.batches.gather(steps)
            return
        for step in steps:
            step()

    def go_live(self, attempts: int) -> dict[str, ModelError]:
        """Serve instead of measure: call for every answer, with few attempts, and record none.

        Returns:
            name of a model whose replies came from a file -> why it cannot be opened itself.

        """
        missing = {}
        for replies in self._replies:
            try:
                replies.go_live()
            except (ModelError, MissingExtra) as error:
                missing[replies.name] = ModelError(str(error))
        for hosted in self._hosted:
            hosted.attempts = attempts
        for recorded in self._recorded:
            recorded.live = True
        return missing

    def facts(self) -> dict[str, Any]:
        """Return what is known about each hosted model, for the manifest."""
        return {
            endpoint.name: {
                "abilities": asdict(endpoint.abilities) if endpoint.abilities else None,
                "asked_again": dict(endpoint.failures),
                "price": self.prices[endpoint.name].source
                if endpoint.name in self.prices
                else "this machine",
                "price_checked": self._price_checked(endpoint.name),
            }
            for endpoint in self._hosted
        }

    def _price_checked(self, name: str) -> str | None:
        """Return the day on which the price of a model was looked up."""
        price = self.prices.get(name)
        return None if price is None or price.checked is None else price.checked.isoformat()


class _Opener:
    """Opens models one after the other; a stack closes them."""

    def __init__(
        self,
        stack: ExitStack,
        recording: CallRecording,
        add_budget: AddBudget,
        project_prices: Mapping[str, TokenPrice],
        *,
        replay: bool,
        batches: Batches | None,
        others: OtherMachines | None = None,
        vllm: VllmServers | None = None,
    ) -> None:
        self.stack = stack
        self.others = others
        self.vllm = stack.enter_context(closing(vllm or VllmServers()))
        self.batches = batches
        self.by_batch = False
        """Whether calls of any model go by batch."""
        self.recording = recording
        self.add_budget = add_budget
        self.project_prices = project_prices
        self.replay = replay
        self.prices: dict[str, CallPrice] = {}
        self.chats: dict[str, TextModel] = {}
        self.parameters: dict[str, int] = {}
        self.hosted: list[HostedEndpoint] = []
        self.recorded: list[RecordedEndpoint] = []
        self.replies: list[RepliesEndpoint] = []

    def open(
        self, model: NamedModel, abilities: Abilities | None = None, *, trained: bool = False
    ) -> TextModel:
        """Open a model, recorded and, if it is hosted, paid for.

        Args:
            model: whom to open.
            abilities: of its server; found out if None.
            trained: it was trained and paid for already, so it answers even at an unknown price.

        Raises:
            ModelError: the price of its calls is unknown.

        """
        price = call_price(model.name, model.price or project_price(model.name, self.project_prices))
        if price is not None and price.source == UNKNOWN_PRICE and not trained:
            raise ModelError(missing_price(model.name, own=self.project_prices))
        if price is not None:
            self.prices[model.name] = price
        local = model.name.startswith(HERE_PREFIXES)
        if model.name.startswith(EMBEDDED_PREFIX):
            self.parameters[model.name] = known_model(model.name).parameters

        def opened() -> Endpoint:
            return self._endpoint(model, abilities, price, local=local)

        endpoint: Endpoint | None = None
        if model.replies is not None and not self.replay:
            endpoint = replies = RepliesEndpoint(model.name, model.replies, opened)
            self.replies.append(replies)
            self.parameters.setdefault(model.name, replies.origin.parameters)
        elif not self.replay:
            endpoint = opened()
        # The recording is outermost: a recorded answer passes no cap and costs nothing.
        self.recorded.append(RecordedEndpoint(model.name, self.recording, endpoint))
        cache = model.cache or prompt_cache(model.name)
        self.chats[model.name] = TextModel(
            self.recorded[-1], remote=not local, cache=cache, settings=model.settings
        )
        return self.chats[model.name]

    def _endpoint(
        self, model: NamedModel, abilities: Abilities | None, price: CallPrice | None, *, local: bool
    ) -> Endpoint:
        if local:
            own = open_here(model) if self.others is None else self.others.own_model(model)
            self.stack.callback(own.close)
            self.parameters.setdefault(model.name, own.parameters)
            return own
        hosted = self._hosted(model, abilities)
        self.hosted.append(hosted)
        self.stack.callback(hosted.close)
        called = hosted if self.others is None else self.others.calls(model, hosted)
        direct = self.add_budget(called, price)
        terms = batch_terms(model.name)
        if self.batches is None or terms is None or not (model.batch or self.batches.log.holds(model.name)):
            return direct
        self.by_batch |= model.batch
        jobs = hosted.wire.batches()
        self.stack.callback(jobs.close)
        return BatchedEndpoint(self.batches, direct, hosted, jobs, terms, price, submits=model.batch)

    def _hosted(self, model: NamedModel, abilities: Abilities | None) -> HostedEndpoint:
        if not model.name.startswith(VLLM_PREFIX):
            return open_hosted(model, abilities)
        from tunepoint.models.vllm_endpoint import VllmEndpoint

        settings: dict[str, Any] = {"concurrency": model.concurrency, "abilities": abilities}
        return VllmEndpoint(self.vllm, model.name.removeprefix(VLLM_PREFIX), model.folder, **settings)

    def open_tuned(self, name: str, abilities: Abilities, key_env: str | None = None) -> TextModel:
        """Open a model that was tuned in this study, once."""
        if name in self.chats:
            return self.chats[name]
        return self.open(NamedModel(name, key_env=key_env), abilities, trained=True)

    def models(
        self, named: Sequence[NamedModel], judge: NamedModel | None, proposer: str | None
    ) -> ChatModels:
        """Return what is open: the models under test, the judge, and who proposes prompts."""
        return ChatModels(
            tuple(self.chats[model.name] for model in named),
            self.prices,
            proposer=self.chats[proposer or named[0].name] if proposer or named else None,
            judge=self.judging(judge) if judge else None,
            parameters=self.parameters,
            tuned=self.open_tuned,
            batches=self.batches if self.by_batch else None,
            vllm=self.vllm,
            _hosted=self.hosted,
            _recorded=self.recorded,
            _replies=self.replies,
        )

    def judging(self, judge: NamedModel) -> TextModel:
        """Return an open model as the judge: asked as the judge's own settings say."""
        chat = self.chats[judge.name]
        endpoint = chat.endpoint
        if judge.useless is not None and isinstance(endpoint, RecordedEndpoint):
            endpoint = RecordedEndpoint(judge.name, self.recording, endpoint.endpoint, useless=judge.useless)
            self.recorded.append(endpoint)
        return TextModel(endpoint, remote=chat.remote, cache=chat.cache, settings=judge.settings)


def _distinct(*models: NamedModel | None) -> list[NamedModel]:
    """Return one model of each name, the last: the price and server that a model under test has."""
    return list({model.name: model for model in models if model is not None}.values())


@contextmanager
def open_models(
    named: Sequence[NamedModel],
    recording: Path,
    add_budget: AddBudget,
    *,
    proposer: str | None = None,
    judge: NamedModel | None = None,
    replay: bool = False,
    tuning: bool = False,
    batches: Batches | None = None,
    project_prices: Mapping[str, TokenPrice] = MappingProxyType({}),
    others: OtherMachines | None = None,
    vllm: VllmServers | None = None,
) -> Iterator[ChatModels]:
    """Open chat models for the time of a study; no key and no network is needed to replay.

    Args:
        named: the models under test.
        recording: SQLite file of every call that was ever answered.
        add_budget: puts a spending cap around an endpoint.
        proposer: name of the model that proposes prompts; the first one if None.
        judge: the model that grades answers; None without a judge.
        replay: answer from the recording alone.
        tuning: whether models will be tuned at a provider, and called there.
        batches: of the study, for models whose calls go by batch; None asks everything at once.
        project_prices: prices of the project, for models that come without one.
        others: machines of a cluster that run and call the models; this process does if None.
        vllm: servers of the study's own bases, closed at the end.

    Raises:
        ModelError: a name, a key or a price is missing.

    """
    models = _distinct(judge, NamedModel(proposer) if proposer else None, *named)
    if not models and not tuning:
        with closing(vllm or VllmServers()) as servers:
            yield ChatModels((), {}, vllm=servers)
        return
    with ExitStack() as stack:
        calls = stack.enter_context(closing(CallRecording(recording)))
        how: Any = {"replay": replay, "batches": batches, "others": others, "vllm": vllm}
        opener = _Opener(stack, calls, add_budget, project_prices, **how)
        for model in models:
            opener.open(model)
        yield opener.models(named, judge, proposer)

"""The loop's deployment: studies in a folder, the gateway over HTTP, the capture store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunepoint.capture.acceptance import Rules
from tunepoint.capture.harvest import Harvest, harvest
from tunepoint.capture.store import Store
from tunepoint.data.prepare import prepare
from tunepoint.data.split import Split
from tunepoint.decision.numbers import points_range
from tunepoint.files.text import make_folder
from tunepoint.loop.gateway_client import GatewayClient, Routes
from tunepoint.loop.labels import how_to_label, labelled_lead, labels_drift
from tunepoint.loop.retraining import changed_verdict, measure_drift, retiring_models
from tunepoint.loop.settings_file import LoopSettings, write_settings
from tunepoint.loop.state import (
    CanaryStatus,
    Challenger,
    Goals,
    LoopError,
    LoopFacts,
    StudyOutcome,
    served_name,
)
from tunepoint.loop.stored_state import StoredState
from tunepoint.loop.training_set import task_with_harvest
from tunepoint.serve.canary import Canary
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.run import run
from tunepoint.task.task import Task

UNTUNED_KINDS = (("prompt", "incumbent"), ("baseline",))
"""What the loop may begin with: a prompted language model, else what needs none."""
WEEK_SECONDS = 7 * 86_400.0
UNDECIDED_GROWTH_PERCENT = 150
"""How many examples an undecided study asks for, in percent of its own."""


@dataclass
class LocalDeployment(StoredState):
    """Where the loop keeps what it makes, and the gateway that it controls.

    Args:
        task: with its labelled examples; their test set stays sealed from the choice of arms.
        folder: for studies, harvested examples and serve.toml.
        store_address: what serve.toml says of the store.
        gateway: address of the gateway, without /v1.
        key: with the roles read and operate; none is needed on this machine.
        window: seconds of recent traffic in which drift is looked for.
        canary_settings: further settings of canaries, as in serve.toml.
        margin: how much feedback and readable answers may fall before it is drift.
        collect_first: serve what is not tuned even where the first study says that it is beaten.

    """

    task: Task
    folder: Path
    store: Store
    store_address: str
    gateway: str
    goals: Goals
    key: str | None = None
    seed: int = 0
    window: float = WEEK_SECONDS
    canary_settings: Mapping[str, Any] | None = None
    margin: float = 0.05
    collect_first: bool = False

    # -- serve ---------------------------------------------------------------------------------------

    def serve_prompt(self) -> tuple[str | None, str]:
        """Measure the prompts, write serve.toml, and check that the gateway serves the best one.

        Raises:
            LoopError: all finalists are tuned, or the best other one is beaten with confidence.

        """
        make_folder(self.folder)
        decision = run(self.task, out=self._first_study, seed=self.seed).document
        champion = _untuned_champion(decision)
        if champion is None:
            raise LoopError(f"{self._first_study}: all of its finalists are tuned, so nothing to start with")
        better = None if self.collect_first else _beaten_by(decision, champion)
        if better is not None:
            raise LoopError(
                f"{self._first_study}: {champion!r} would serve while examples are collected, but today's "
                f"examples are enough to beat it: {better}. Serve that one "
                f"(`tunepoint serve {self._first_study}`), or collect more examples first (--collect-first)"
            )
        if not self._settings_path.exists():
            self._write_settings(champion, ())
        if not self._client.is_running():
            return None, f"the gateway at {self.gateway}: `tunepoint serve {self._settings_path}`"
        return champion, ""

    @property
    def _first_study(self) -> Path:
        return self.folder / "study-1"

    @property
    def _settings_path(self) -> Path:
        return self.folder / "serve.toml"

    @property
    def _client(self) -> GatewayClient:
        return GatewayClient(self.gateway, self.key, self._settings_path)

    def _write_settings(self, champion: str, challengers: Sequence[Challenger]) -> None:
        settings = LoopSettings(
            port=self._client.port,
            store=self.store_address,
            task=self.task.name,
            study=self._first_study,
            champion=champion,
            challengers=challengers,
        )
        write_settings(self._settings_path, settings)

    # -- collect -------------------------------------------------------------------------------------

    def split(self) -> Split:
        """The labelled examples in three parts; harvested ones are not among them."""
        return prepare(self.task, self.seed).split

    def harvest(self) -> Harvest:
        """Harvest examples from all traffic so far, without near duplicates of labelled ones."""
        split = self.split()
        rng = stream(self.seed, Stream.HARVEST, self.state().round)
        rules = Rules(self.task.score.accept)
        return harvest(self.store, self.task, (*split.train, *split.dev), split.test, rng, rules)

    def count_new(self, harvest: Harvest) -> int:
        """Count the examples that came since the latest study."""
        studied_at = self.state().facts.studied_at
        return sum(item.at >= studied_at for item in harvest.examples)

    def lacking_labels(self, harvest: Harvest) -> list[str]:
        """List the declared labels that have too few examples."""
        if self.task.answer.kind != "label" or not self.task.answer.labels:
            return []
        counts = Counter(harvest.by_target)
        counts.update(example.target for example in self.split().train)
        return [label for label in self.task.answer.labels if counts[label] < self.goals.min_per_label]

    # -- tune ----------------------------------------------------------------------------------------

    def study(self, harvest: Harvest) -> StudyOutcome:
        """Tune on the training set and the harvest, and decide on the same test set as before."""
        number, started = self.state().facts.study_count + 1, time.time()
        folder = self.folder / f"study-{number}"
        examples = self.folder / f"examples-{number}"
        task = task_with_harvest(self.task, self.split(), harvest, examples)
        decision = run(task, out=folder, seed=self.seed).document
        why = f"study {number}: {decision['verdict']} ({decision['strength'] or 'not settled'}), "
        why += str(decision["winner"])
        facts = LoopFacts(study_count=number, studied_at=started)
        if number > 2:  # a test set wears out with use; the log says how often it was opened
            self.audit(f"the test set was opened by {number} studies")
        if decision["verdict"] in ("fine-tune", "hybrid"):
            winner = str(decision["winner"])
            challenger = Challenger(str(folder.resolve()), winner, served_name(winner, number))
            return StudyOutcome(why, facts.updated(LoopFacts(challenger=challenger)), challenger)
        if decision["verdict"] == "undecided":
            needed = len(harvest.examples) * UNDECIDED_GROWTH_PERCENT // 100
            facts = facts.updated(LoopFacts(examples_needed=needed))
            return StudyOutcome(f"{why}; next study with {needed} examples", facts, examples_needed=needed)
        return StudyOutcome(why, facts)

    # -- canary --------------------------------------------------------------------------------------

    def canary(self, challenger: Challenger) -> tuple[CanaryStatus, str]:
        """Make sure that the gateway has the challenger and tries it; its status, and why."""
        client, task = self._client, self.task.name
        routes = client.routes(task)
        if challenger.name not in routes.arms:
            self._add_to_gateway(challenger, routes.champion)
            routes = client.routes(task)
        if routes.champion == challenger.name:
            return "promoted", self._latest_routes_change()
        if not routes.has_canary:
            if self.state().facts.canary_started_for == challenger.name:
                return "rolled back", self._latest_routes_change()
            self._start_canary(challenger)
            return "runs", f"the canary of {challenger.name}: it has just begun"
        return self._judged_by_labels(challenger, routes)

    def _judged_by_labels(self, challenger: Challenger, routes: Routes) -> tuple[CanaryStatus, str]:
        """End a canary that people's labels decide; they stand for its users' feedback."""
        lead = labelled_lead(challenger, routes.champion)
        says = None if lead is None else lead.verdict(self._canary_margin)
        if says == "worse":
            self._client.roll_back(self.task.name, str(lead))
            return "rolled back", str(lead)
        if says == "not worse" and routes.unclear and "promote" not in self.goals.ask:
            self._client.promote(self.task.name, challenger.name, str(lead))
            return "promoted", str(lead)
        reason = f"the canary of {challenger.name}: {routes.canary_decision or 'it has just begun'}"
        if not self.task.takes_labels:
            return "runs", reason
        known = "" if lead is None else f"{lead}; "
        command = how_to_label(challenger.study, self.store_address)
        return "runs", f"{reason} ({known}labels where options disagree decide it sooner: {command})"

    @property
    def _canary_margin(self) -> float:
        return float((self.canary_settings or {}).get("margin", Canary("").margin))

    def _add_to_gateway(self, challenger: Challenger, champion: str) -> None:
        facts = self.state().facts
        others = (arm for arm in facts.challengers if arm.name != challenger.name)
        challengers = (*others, challenger)
        first = champion if facts.first_champion is None else facts.first_champion
        self._write_settings(first, challengers)
        changes = LoopFacts(challengers=challengers, first_champion=first)
        self.move("canary", f"{challenger.name} was added", changes)
        self._client.reload()

    def _start_canary(self, challenger: Challenger) -> None:
        settings = {"arm": challenger.name, **(self.canary_settings or {})}
        if "promote" in self.goals.ask:
            settings["ask"] = True
        # Written down first: a canary that ends before we look has to be known as ended, not as unborn.
        self.record(LoopFacts(canary_started_for=challenger.name))
        self._client.start_canary(self.task.name, settings)

    def promote(self, challenger: Challenger) -> None:
        """Promote the challenger, since a person approved it."""
        self._client.promote(self.task.name, challenger.name, "approved by a person")

    def _latest_routes_change(self) -> str:
        """The reason of the latest promotion or rollback, from the audit log."""
        entries = [str(entry["what"]) for entry in self.store.audit_log(self.task.name)]
        changes = [entry for entry in entries if entry.startswith(("promoted", "rolled back"))]
        return changes[-1].partition(": ")[2] if changes else "the gateway's audit log has no reason"

    # -- watch ---------------------------------------------------------------------------------------

    def reasons_to_retrain(self) -> tuple[list[str], str]:
        """Reasons for another round, and what was checked for drift."""
        facts, name = self.state().facts, self.task.name
        drifts = measure_drift(
            self.store,
            name,
            [example.input for example in self.split().train],
            since=facts.watching_since,
            window=self.window,
            margin=self.margin,
            seed=self.seed,
        )
        checked = [str(drift) for drift in drifts]
        latest = self.folder / f"study-{facts.study_count}"
        reasons = [f"drift, {drift}" for drift in drifts if drift.drifted]
        self.store.set_state(f"drift/{name}", {"words": checked, "drifted": bool(reasons)})
        lasting = [
            *labels_drift(latest),
            *changed_verdict(latest, self.store, name),
            *retiring_models(self.task),
        ]
        # These stay true after a round has answered them, and must not begin one after another.
        reasons += [reason for reason in lasting if reason not in facts.answered_reasons]
        looked = "; ".join(checked) or "too little traffic yet"
        if reasons or not self.task.takes_labels:
            return reasons, looked
        return reasons, f"{looked}; labels show drift too: {how_to_label(latest, self.store_address)}"


def _untuned_champion(decision: Mapping[str, Any]) -> str | None:
    """Return the name of the best finalist that is not tuned; None if all are."""
    for kinds in UNTUNED_KINDS:
        arms = [arm for arm in decision["finalists"] if arm["kind"] in kinds]
        if arms:
            return str(max(arms, key=lambda arm: arm["score"]["estimate"])["arm"])
    return None


def _beaten_by(decision: Mapping[str, Any], arm: str) -> str | None:
    """Return what a study recommends in place of an arm, in words; None where it is not sure of that."""
    if decision["strength"] != "confident" or decision["winner"] == arm:
        return None
    for difference in decision["differences"]:
        if difference["against"] == arm and difference["conclusion"] == "better":
            lead = points_range(difference["low"], difference["high"])
            return f"{decision['winner']!r} scores {lead} points more"
    return None

"""The parts of a study's manifest; field names are the keys of the file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from tunepoint.trials.trial import ArmKind

Purchase = Literal["test_items", "training_seeds"]
"""Evidence that a study buys for itself."""


class Record(BaseModel):
    """A part of the manifest."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    def content(self) -> dict[str, Any]:
        """The part as it stands in the file."""
        # what was never set stays out of the file, as in a study made before the key existed
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def text(self) -> str:
        """The text of the file; many times as fast as `json.dumps`, which writes indented JSON in Python."""
        return self.model_dump_json(indent=2, by_alias=True, exclude_unset=True) + "\n"


class Items(Record):
    """Ids of the examples in each part."""

    train: list[str]
    """Examples that arms learn from."""
    dev: list[str]
    """The validation set, which selects."""
    test: list[str]
    """The sealed test set."""


class SealedTest(Record):
    """The opening of the test set."""

    opened: str
    """Time of the opening, ISO 8601."""
    finalists: list[str]
    """Names of the arms it was opened for."""
    items: int
    """Test items at that time."""


class Fit(Record):
    """What fitting an arm once took."""

    examples: int
    """Labeled examples without which the arm would not be what it is."""
    seconds: float
    """Training time on this machine."""
    usd: float = 0.0
    """Dollars paid for the training, the calls that wrote its examples included."""
    warnings: list[str] = []
    """What looks wrong with the training run."""


class MeasuredArm(Record):
    """An arm that was fitted."""

    kind: ArmKind
    """How it does the task: prompt, tuned, hybrid, cascade, incumbent or baseline."""
    family: str
    """Arms that differ only in settings share it."""
    fits: dict[str, Fit]
    """Number of the training seed -> its fit."""
    label: str | None = None
    """What people read instead of the name; None in studies made before arms had one."""
    models: dict[str, dict[str, float] | None] = {}
    """Model that answers for it -> dollars per million tokens by rate; None where calls are free."""


class Machine(Record):
    """The machine on which the study began."""

    python: str
    """Version of Python."""
    system: str
    """Operating system."""
    processor: str
    """Architecture of the processor."""
    cores: int
    """Cores that the process may use."""


class Offer(Record):
    """Evidence for sale, and what it is worth."""

    kind: Literal["test_items", "training_seeds", "training_examples"]
    """Test items, training seeds or training examples."""
    more: int
    """Pieces of it in one purchase."""
    value_usd: float
    """Expected gain in net value over the horizon."""
    price_usd: float
    """Dollars of the purchase."""


class PurchaseDecision(Record):
    """What the next pieces of evidence were worth at one point of a study."""

    items: int
    """Test items measured so far."""
    more_seeds: int = 0
    """Training seeds on top of those that every trained arm has."""
    worth: list[Offer] = []
    """All offers of that moment."""
    bought: Purchase | None = None
    """The one that was taken; None where none was worth its price."""


class Bought(Record):
    """How far the test was measured, where errors have a price."""

    stakes: list[JsonValue] = Field(alias="for")
    """The task's figures that the worth of evidence depends on; with others, the decisions are void."""
    looks: list[PurchaseDecision]
    """Every decision, in order."""
    stopped: bool
    """Whether more evidence is not worth its price."""
    capped: str | None = None
    """Why the spending cap ended the purchases; None where it did not."""

    def without_cap(self) -> Bought:
        """The same before the cap was reached; the key leaves the file."""
        return Bought.model_validate({k: v for k, v in self.content().items() if k != "capped"})


class RaceResult(Record):
    """How far an arm came in its race on the validation set."""

    arm: str
    """Name of the arm."""
    items: int
    """Validation items that it answered."""
    stopped_by: str | None
    """The arm that was ahead when it was stopped; None for those that stayed to the end."""
    unreadable: str | None = None
    """A reply of an arm that was stopped because its answers cannot be read."""


class AskedAnew(Record):
    """Answers that could not be read and were asked for once more, on demand."""

    arm: str
    """Name of the arm."""
    answers: int
    """How many of its answers."""
    part: Literal["test", "validation"]
    """The set whose examples they answer."""
    on: str
    """Day, ISO 8601."""


class Ceiling(Record):
    """What one more proposal of the prompt search would gain, in score."""

    estimate: float
    """Expected gain."""
    low: float
    """Lower bound."""
    high: float
    """Upper bound, 95%."""


class SearchHeadroom(Record):
    """What new instructions did on failures of the best prompt, before a search."""

    base: str
    """Name of the prompted arm."""
    failing: float
    """Share of the validation items that it does not get wholly right."""
    tried: int
    """Failures that the new instructions were tried on."""
    cured: int
    """Those on which one of them did better."""
    gain: float
    """Expected gain in score."""
    most: float
    """Upper bound, 95%."""
    needed: float
    """Gain in score that is worth a search."""
    asked: int
    """Answers that the test took."""


class PromptSearch(Record):
    """The result of the search for a better instruction."""

    base: str
    """Name of the arm whose instruction was searched."""
    instruction: str
    """The best instruction."""
    trajectory: list[tuple[int, float]]
    """(answers so far, objective on the validation set) at each improvement."""
    proposals: int
    """Instructions that the proposer wrote."""
    asked: int
    """Answers that the search took."""
    ceiling: Ceiling
    """What one more proposal would gain."""
    kept: bool
    """Whether the best instruction is the one that the search began with."""
    ends: list[float] | None = None
    """Objective of the best instruction of each search, where there were several; the best one counts."""


class LabelOrder(Record):
    """Which inputs of a pool people label first; drawn up once, from the verdict of the test set alone."""

    winner: str
    """The best bet of the test set."""
    doubts: dict[str, float]
    """Name of an arm -> how open it is whether it makes choosing the winner wrong, 0 to .5."""


class Taught(Record):
    """The answers of the best prompt that models were trained on."""

    teacher: str
    """Name of the prompted arm."""
    prompt: str
    """Version of its prompt: first digits of a SHA-256."""
    asked: int
    """Training inputs that it answered."""
    accepted: int
    """Answers that the scorer accepted."""
    usd: float
    """Dollars of its answers and their grading."""


class CurvePoint(Record):
    """A size of the learning curve below the whole training set."""

    examples: int
    """Training examples."""
    arm: str
    """Name under which its trials are recorded in curve.jsonl."""


class ModelFacts(Record):
    """What was found out about a chat model."""

    abilities: dict[str, Any] | None = None
    """What its server can do; None where it was never called."""
    asked_again: dict[str, int]
    """Reason -> calls that were repeated or failed."""
    price: str
    """Where its price comes from."""
    price_checked: str | None = None
    """Day on which that price was looked up, ISO 8601."""


class Decided(Record):
    """Trials and grades behind the decision: `whatif` decides on the same."""

    runs: list[tuple[str, str | None, str | None]]
    """(arm, training seed, decode) of the trials that counted."""
    people: list[tuple[str, str, float]]
    """(item, answer, grade) of what people graded."""

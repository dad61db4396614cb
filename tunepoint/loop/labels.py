"""What people's labels say of a challenger: they were asked only where it and other options disagree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunepoint.loop.state import Challenger, name_in_study
from tunepoint.stats.comparisons import compare
from tunepoint.stats.intervals import Interval
from tunepoint.stats.streams import Stream, stream
from tunepoint.study.labelling.counting import another_pool
from tunepoint.study.labelling.inputs import POOL_INPUTS
from tunepoint.study.labelling.pool import open_pool
from tunepoint.study.whatif import reopen
from tunepoint.trials.table import joint_of

LEVEL = 0.99
"""Of the interval: it stands beside the measures of the canary, whose intervals share 5% of errors."""


@dataclass(frozen=True)
class LabelledLead:
    """How much better a challenger is than the champion, by the labels of its study."""

    labels: int
    """Outside of the test set."""
    lead: Interval
    """Mean score of the challenger less the champion's, -1..1, however often people have looked."""

    def verdict(self, margin: float) -> Literal["worse", "not worse"] | None:
        """Whether it is worse by more than the margin, for sure, or not worse by more; None if unclear."""
        if self.lead.high < -margin:
            return "worse"
        return "not worse" if self.lead.low > -margin else None

    def __str__(self) -> str:
        points = f"{self.lead.estimate:+.3f} ({self.lead.low:+.3f} to {self.lead.high:+.3f})"
        return f"score {points} against the champion's, with {self.labels} labels where options disagree"


def labelled_lead(challenger: Challenger, champion: str) -> LabelledLead | None:
    """Return what the labels of a challenger's study say of it and the champion; None without such labels.

    Args:
        challenger: with its study.
        champion: the gateway's name of the arm that serves.

    Raises:
        StudyError: the study is damaged.

    """
    study = reopen(Path(challenger.study))
    table, rng = study.table, stream(study.manifest.seed, Stream.DECISION)
    champion = name_in_study(champion, table.names)
    if table.pool is None or champion not in table.names or champion == challenger.arm:
        return None
    pair = (table.names.index(challenger.arm), table.names.index(champion))
    if not set(pair) <= set(table.pool.asked.tolist()):
        return None
    (comparison,) = compare(joint_of(table), [pair], rng, level=LEVEL)
    return LabelledLead(len(table.pool.labelled), comparison.difference)


def labels_drift(study: Path) -> list[str]:
    """Return that the labels of a study's pool show other differences than its test set, if they do.

    Raises:
        StudyError: the study is damaged.

    """
    if not (study / POOL_INPUTS).exists():
        return []
    table = reopen(study).table
    pool = open_pool(study, table.names)
    if pool is None or not pool.labelled or not another_pool(table, pool.scores(table.names)):
        return []
    return [f"drift, labels of recent inputs: other differences between options than in {study.name}"]


def how_to_label(study: Path | str, store: str) -> str:
    """Return the command that asks people only where the options of a study disagree on captured traffic."""
    return f"tunepoint label {study} --store {store}"

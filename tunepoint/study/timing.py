"""Seconds of a call, measured before a study: by a few of the calls that it will make."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from tunepoint.arms.catalog import CandidateArms
from tunepoint.arms.contract import Arm
from tunepoint.files.machine import cores
from tunepoint.study.expected_calls import families
from tunepoint.study.ordering import shuffled_dev
from tunepoint.study.runner import Runner

TIMED_CALLS = 4
"""Answers of each family behind its seconds; one more warms up what the family's prompts share."""


def seconds_by_family(runner: Runner, candidates: CandidateArms) -> Mapping[str, float]:
    """Return family -> seconds of an answer where as many are asked at once as the model takes.

    Only models whose calls cost nothing are asked: others wait until the quote was accepted. The answers
    are recorded, and are among those that the study needs.
    """
    dev, timed = shuffled_dev(runner), {}
    for arms in families(candidates):
        arm = arms[0]
        asked = arm.base_model is not None and arm.base_model not in runner.models.reply_origins
        if not asked or arm.base_model in runner.prices:
            continue
        runner.announce(f"timing a few answers: {arm.label}")
        timed[arm.family] = _seconds(runner, arm, [example.input for example in dev[: TIMED_CALLS + 1]])
    return timed


def _seconds(runner: Runner, arm: Arm, inputs: list[str]) -> float:
    rng = np.random.default_rng([runner.study.manifest.seed, 0])  # that of the race, for the same prompts
    fitted = arm.fit(runner.task, runner.prepared.split.train, rng)
    first, *others = inputs
    fitted.answer([first])
    started = time.perf_counter()
    replies = fitted.answer(others or [first])
    elapsed = (time.perf_counter() - started) / len(replies)
    # In a study that resumes, they come from the recording, with the seconds that they took.
    recorded = float(np.mean([reply.usage.seconds or 0.0 for reply in replies]))
    return max(elapsed, recorded / (TIMED_CALLS if arm.remote else cores()))

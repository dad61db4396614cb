"""What the reader of a decision should know about the judge, in words."""

from __future__ import annotations

from tunepoint.trials.judge_quality import MIN_CALIBRATION_GROUPS, JudgeNoise, JudgeQuality

MIN_SELF_AGREEMENT = 0.8
"""Share of equal grades to the same question below which the reader is warned of the judge."""
MIN_POSITION_SHIFT = 0.5
"""Share of the margin from which the reader is told what the position of the answer does."""


def judge_caveats(judged: JudgeQuality | None, margin: float) -> list[str]:
    """Return what the reader should know about the judge; nothing without one.

    Args:
        judged: quality of the judge.
        margin: of the score, below which a difference is no reason to switch.

    """
    if judged is None:
        return []
    caveats = [_calibration_caveat(judged)]
    return caveats if judged.noise is None else [*caveats, *_noise_caveats(judged.noise, margin)]


def _calibration_caveat(judged: JudgeQuality) -> str:
    if judged.calibrations:
        items = min(calibration.items for calibration in judged.calibrations)
        return (
            f"Scores are a judge's, corrected by people's grades of at least {items} test items per option. "
            "The correction treats those items as a random sample of the test set."
        )
    counts = ", ".join(f"{arm} {count}" for arm, count in judged.graded)
    return (
        "Scores are a judge's opinion that nobody has checked. Let people grade the answers of every "
        f"finalist to {MIN_CALIBRATION_GROUPS} test items or more (now: {counts}), in to_grade.csv or "
        "score.human, and run again."
    )


def _noise_caveats(noise: JudgeNoise, margin: float) -> list[str]:
    caveats = []
    if noise.agreement is not None and noise.agreement < MIN_SELF_AGREEMENT:
        caveats.append(
            f"The judge repeated its grade for only {noise.agreement:.0%} of {noise.repeated} answers. A "
            "sharper rubric or a better judge would need fewer items."
        )
    position = noise.position
    if 0 not in position and abs(position.estimate) > MIN_POSITION_SHIFT * margin:
        caveats.append(
            f"The judge's scores move by {position.estimate:+.3f} ({position.low:+.3f} to "
            f"{position.high:+.3f}) when the answer stands first. Every score is the mean of both orders."
        )
    return caveats

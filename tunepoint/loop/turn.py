"""The whole loop: serve the best prompt, collect, tune, decide, canary, promote, watch, and start again."""

from __future__ import annotations

from tunepoint.capture.harvest import Harvest
from tunepoint.loop.state import Deployment, Goals, LoopFacts, LoopState


def advance(deployment: Deployment, goals: Goals) -> LoopState:
    """Continue from where the loop is until it has to wait; it may be killed and called again at any time."""
    state = deployment.state()
    while True:
        if state.step == "serve":
            champion, missing = deployment.serve_prompt()
            if champion is None:
                return deployment.wait(state, missing)
            state = deployment.move("collect", f"{champion} serves")
        elif state.step == "collect":
            harvest = deployment.harvest()
            if missing := _missing_examples(deployment, goals, state, harvest):
                return deployment.wait(state, missing)
            state = deployment.move("tune", f"{len(harvest.examples)} good examples were collected")
        elif state.step == "tune":
            if not _may(deployment, goals, "tune"):
                return deployment.wait(state, "approval to tune (--yes tune)")
            outcome = deployment.study(deployment.harvest())
            if outcome.challenger is not None:
                state = deployment.move("canary", outcome.why, outcome.facts)
            elif outcome.examples_needed is not None:
                state = deployment.move("collect", outcome.why, outcome.facts)
            else:
                state = deployment.move("watch", outcome.why, outcome.facts)
        elif state.step == "canary":
            if not _may(deployment, goals, "canary"):
                return deployment.wait(state, "approval to start the canary (--yes canary)")
            challenger = state.facts.challenger
            assert challenger is not None, "`tune` writes it down"
            status, why = deployment.canary(challenger)
            if status != "runs":
                state = deployment.move("watch", f"{challenger.name} was {status}: {why}")
            elif "promote" in goals.ask and deployment.approved("promote"):
                deployment.promote(challenger)
            else:
                return deployment.wait(state, why)
        else:
            reasons, checked = deployment.reasons_to_retrain()
            if not reasons:
                return deployment.wait(state, f"a reason to retrain (checked: {checked})")
            if not _may(deployment, goals, "collect"):
                return deployment.wait(state, f"approval to retrain (--yes collect): {'; '.join(reasons)}")
            facts = LoopFacts(answered_reasons=(*state.facts.answered_reasons, *reasons))
            why = f"retraining: {'; '.join(reasons)}"
            state = deployment.move("collect", why, facts, round=state.round + 1)


def _may(deployment: Deployment, goals: Goals, step: str) -> bool:
    """Whether a step needs no approval, or has it."""
    return step not in goals.ask or deployment.approved(step)


def _missing_examples(deployment: Deployment, goals: Goals, state: LoopState, harvest: Harvest) -> str:
    """What is still to be collected, in words; empty if nothing is.

    In later rounds only new examples count: the latest study has tuned on the others.
    """
    if state.round == 1:
        needed = max(goals.min_examples, state.facts.examples_needed or 0)
        count = len(harvest.examples)
    else:
        needed, count = goals.min_new_examples, deployment.count_new(harvest)
    if count < needed:
        return f"{count} of {needed} good examples"
    labels = ", ".join(deployment.lacking_labels(harvest))
    return f"at least {goals.min_per_label} examples of each label; too few of {labels}" if labels else ""

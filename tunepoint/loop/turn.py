"""The whole circle: serve the best prompt, collect, tune, decide, canary, promote, watch, ask again."""

from __future__ import annotations

from tunepoint.loop.state import Challenger, Deployment, Goals, LoopState


def advance(deployment: Deployment, goals: Goals) -> LoopState:
    """Go on from where the loop is until it has to wait; may be stopped and called again at any time."""
    standing = deployment.standing()
    while True:
        asked = standing.step in goals.ask and not deployment.said_yes(standing.step)
        if standing.step == "serve":
            arm, missing = deployment.serve_prompt()
            if arm is None:
                return deployment.wait(standing, missing)
            standing = deployment.move("collect", f"{arm} serves")
        elif standing.step == "collect":
            found = deployment.harvest()
            first = standing.round == 1
            good = max(goals.good, standing.facts.get("needed", 0)) if first else goals.again
            count = len(found.taken) if first else deployment.fresh(found)
            if count < good:
                return deployment.wait(standing, f"{count} of {good} good examples")
            if lacking := deployment.lacking(found):
                return deployment.wait(
                    standing, f"more than {goals.per_label} examples of {', '.join(lacking)}"
                )
            standing = deployment.move("tune", f"{len(found.taken)} good examples were collected")
        elif standing.step == "tune":
            if asked:
                return deployment.wait(standing, "a person's yes to tuning")
            done = deployment.study(deployment.harvest())
            if done.challenger is not None:
                standing = deployment.move("canary", done.why, challenger=vars(done.challenger), **done.facts)
            elif done.needed is not None:
                standing = deployment.move("collect", done.why, needed=done.needed, **done.facts)
            else:
                standing = deployment.move("watch", done.why, **done.facts)
        elif standing.step == "canary":
            if asked:
                return deployment.wait(standing, "a person's yes to the canary")
            challenger = Challenger(**standing.facts["challenger"])
            state, why = deployment.canary(challenger)
            if state == "runs" and "promote" in goals.ask and deployment.said_yes("promote"):
                deployment.promote(challenger)
                continue
            if state == "runs":
                return deployment.wait(standing, why)
            standing = deployment.move("watch", f"{challenger.name} was {state}: {why}")
        else:
            reasons, looked_at = deployment.reasons()
            if not reasons:
                return deployment.wait(standing, f"nothing speaks for asking again ({looked_at})")
            if "collect" in goals.ask and not deployment.said_yes("collect"):
                return deployment.wait(standing, f"a person's yes to asking again: {'; '.join(reasons)}")
            why, asked_ = f"asked again: {'; '.join(reasons)}", [*standing.facts.get("asked", []), *reasons]
            standing = deployment.move("collect", why, round=standing.round + 1, asked=asked_)

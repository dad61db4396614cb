"""The whole circle: serve the best prompt, collect, tune, decide, canary, promote, watch, ask again."""

from __future__ import annotations

from tunepoint.loop.state import Challenger, Goals, Standing, World


def turn(world: World, goals: Goals) -> Standing:
    """Go on from where the loop is until it has to wait; may be stopped and called again at any time."""
    standing = world.standing()
    while True:
        asked = standing.step in goals.ask and not world.said_yes(standing.step)
        if standing.step == "serve":
            arm, missing = world.serve_prompt()
            if arm is None:
                return world.wait(standing, missing)
            standing = world.move("collect", f"{arm} serves")
        elif standing.step == "collect":
            found = world.harvest()
            first = standing.round == 1
            good = max(goals.good, standing.facts.get("needed", 0)) if first else goals.again
            count = len(found.taken) if first else world.fresh(found)
            if count < good:
                return world.wait(standing, f"{count} of {good} good examples")
            if lacking := world.lacking(found):
                return world.wait(standing, f"more than {goals.per_label} examples of {', '.join(lacking)}")
            standing = world.move("tune", f"{len(found.taken)} good examples were collected")
        elif standing.step == "tune":
            if asked:
                return world.wait(standing, "a person's yes to tuning")
            done = world.study(world.harvest())
            if done.challenger is not None:
                standing = world.move("canary", done.why, challenger=vars(done.challenger), **done.facts)
            elif done.needed is not None:
                standing = world.move("collect", done.why, needed=done.needed, **done.facts)
            else:
                standing = world.move("watch", done.why, **done.facts)
        elif standing.step == "canary":
            if asked:
                return world.wait(standing, "a person's yes to the canary")
            challenger = Challenger(**standing.facts["challenger"])
            state, why = world.canary(challenger)
            if state == "runs" and "promote" in goals.ask and world.said_yes("promote"):
                world.promote(challenger)
                continue
            if state == "runs":
                return world.wait(standing, why)
            standing = world.move("watch", f"{challenger.name} was {state}: {why}")
        else:
            reasons, looked_at = world.reasons()
            if not reasons:
                return world.wait(standing, f"nothing speaks for asking again ({looked_at})")
            if "collect" in goals.ask and not world.said_yes("collect"):
                return world.wait(standing, f"a person's yes to asking again: {'; '.join(reasons)}")
            why, asked_ = f"asked again: {'; '.join(reasons)}", [*standing.facts.get("asked", []), *reasons]
            standing = world.move("collect", why, round=standing.round + 1, asked=asked_)

"""Which models a study prompted and tuned, and how large they are."""

from __future__ import annotations

from typing import Any

from tunepoint.arms.catalog import CandidateArms
from tunepoint.models.embedded import ENCODER_PARAMETERS
from tunepoint.models.opening import ChatModels
from tunepoint.task.sections import EMBEDDED


def compared_models(candidates: CandidateArms, models: ChatModels) -> list[dict[str, Any]]:
    """Return each model with its role and its number of parameters, for decision.json.

    Returns:
        `name` as task.toml writes it, `role` (prompted or tuned), `parameters`, None where it is not known
        (hosted models do not tell), and `recorded`, what its replies are of where they come from a file.

    """
    prompted = {chat.name: models.parameters.get(chat.name) for chat in models.chats}
    tuned: dict[str, int | None] = {}
    recorded = models.reply_origins
    for arm in (*candidates.tuned, *candidates.hybrid):
        name = arm.base_model or EMBEDDED
        tuned[name] = ENCODER_PARAMETERS if name == EMBEDDED else None
    roles = (("prompted", prompted), ("tuned", tuned))
    return [
        {"name": name, "role": role, "parameters": parameters}
        | ({"recorded": recorded[name].content()} if role == "prompted" and name in recorded else {})
        for role, sizes in roles
        for name, parameters in sizes.items()
    ]

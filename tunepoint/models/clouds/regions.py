"""Where a cloud is called, by the environment."""

from __future__ import annotations

import os

from tunepoint.errors import ModelError

AWS_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
GOOGLE_PROJECTS = ("GOOGLE_CLOUD_PROJECT", "ANTHROPIC_VERTEX_PROJECT_ID")
GOOGLE_LOCATIONS = ("GOOGLE_CLOUD_LOCATION", "CLOUD_ML_REGION")
"""Environment variables, of which the first that is set counts: the cloud's own, Anthropic's."""


def aws_region(name: str) -> str:
    """Return the region at Amazon; `name` says what needs it.

    Raises:
        ModelError: none is set.

    """
    region = first_set(AWS_REGIONS)
    if region is None:
        raise ModelError(f"{name} needs a region: set AWS_REGION in the environment, as to us-east-1")
    return region


def google_place(name: str) -> tuple[str, str]:
    """Return the project and the region at Google; `name` says what needs them.

    Raises:
        ModelError: one is not set.

    """
    project, location = first_set(GOOGLE_PROJECTS), first_set(GOOGLE_LOCATIONS)
    if project is None or location is None:
        missing = [names[0] for names in (GOOGLE_PROJECTS, GOOGLE_LOCATIONS) if first_set(names) is None]
        raise ModelError(f"{name} needs a project and a region: set {' and '.join(missing)}")
    return project, location


def first_set(names: tuple[str, ...]) -> str | None:
    """Return the value of the first variable that is set; None if none is."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)

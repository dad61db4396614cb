"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunepoint.cli.terminal import ProgressForm

DEFAULT_STORE = "capture.sqlite"

HERE = Path()
TaskArgument = Annotated[Path, typer.Argument(help="task.toml, or its folder.")]
StudyArgument = Annotated[Path, typer.Argument(help="Study directory.")]
OutOption = Annotated[Path | None, typer.Option(help="Study directory.")]
PlaceOption = Annotated[
    str | None, typer.Option("--out", help="Study directory, or its address, as in s3://bucket/study.")
]
StoreOption = Annotated[str, typer.Option(help="Capture store: a file, or postgresql://...")]
SeedOption = Annotated[int, typer.Option(help="Random seed.", min=0)]
SplitSeedOption = Annotated[
    int | None,
    typer.Option(help="Random seed of the split; by default that of the task's study, else 0.", min=0),
]
SplitStudyOption = Annotated[
    Path | None, typer.Option(help="Split as this study did, so that its test set stays sealed.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BatchOption = Annotated[
    bool,
    typer.Option("--batch", help="Ask by the providers' batch APIs: about half the price, a day at most."),
]
FailUndecidedOption = Annotated[
    bool, typer.Option("--fail-undecided", help="Exit with code 3 if the verdict is not sure yet.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Skip confirmation.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Print signals, caveats and what would change the verdict too.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
ProgressOption = Annotated[
    ProgressForm, typer.Option("--progress", help="A bar, or lines of JSON on standard error.")
]
CapOption = Annotated[float | None, typer.Option(help="Stop before spending more than this.", min=0)]
FreshOption = Annotated[
    str | None,
    typer.Option(
        "--fresh", help="Ask again: 'judge' for grades it did not give, or an option for unreadable answers."
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option("--on", help="Use a Ray cluster: 'ray' (RAY_ADDRESS, else this machine) or an address."),
]

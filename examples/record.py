"""Record the language model's replies over an example: `make record-demo`.

An example takes its replies from `replies.jsonl`, because a model that runs on two cores needs up to an hour or
more for them. This asks the model itself, for all that the example asks, and writes the file anew.

    python examples/record.py [EXAMPLE] [--out studies/EXAMPLE-recording]
"""

from __future__ import annotations

import argparse
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tunepoint import Task, run
from tunepoint.files.machine import cores
from tunepoint.models.gguf.catalog import known_model
from tunepoint.models.replies import ReplyOrigin, write_replies
from tunepoint.study.progress import Progress

HERE = Path(__file__).parent


def main() -> None:
    """Run the example's study with the model itself, and write down what it replied."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("example", nargs="?", default="support-triage", help="a folder beside this file")
    parser.add_argument("--out", type=Path, help="folder of the study")
    options = parser.parse_args()
    task, out = Task.load(HERE / options.example), options.out or Path(f"studies/{options.example}-recording")
    files = task.replies()
    if not files:
        raise SystemExit(f"{HERE / options.example}: no model of its task has `replies`")
    origins = {name: origin(name) for name in files}  # before the hour, not after it
    run(task.asking_models(), out=out, seed=0, progress=show)
    for name, path in files.items():
        count = write_replies(path, out / "calls.sqlite", origins[name])
        print(f"{count:,} replies of {name} are in {path}")


def show(progress: Progress) -> None:
    """Print a line of progress."""
    print(f"{progress.share or 0.0:4.0%}  {progress.what}", flush=True)


def origin(name: str) -> ReplyOrigin:
    """What the replies of today are of."""
    model = known_model(name)
    return ReplyOrigin(
        model=name,
        title=model.title,
        parameters=model.parameters,
        weights_sha256=model.sha256,
        runtime=f"llama.cpp in xllamacpp {version('xllamacpp')}",
        processor=f"{processor()}, {cores()} cores",
        settings="temperature 0, labels and JSON confined by a grammar",
        day=datetime.now(UTC).date(),
    )


def processor() -> str:
    """The processor's name, where the system tells it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

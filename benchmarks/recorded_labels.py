"""Recorded outputs of a language model against the encoder's arms, on banking77's 3,080 test items.

Recordings of Qwen3-1.7B (zero-shot free and constrained, 5 and 20 examples, 10 similar ones) are
read as any reply is, scored, and decided against what a study with the embedded encoder measured on the
same items, with 8 examples a label. DATA is the folder with the recordings and their splits; where it is
missing the benchmark says so and skips. A recording of a part of the items is left out, and named.
What a query to the recorded model costs is declared: see COST.

    python benchmarks/recorded_labels.py [DATA] [--rung 08]
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path

from tunepoint import Example, Task, decide_trials, read_trials, run
from tunepoint.arms.incumbent import MIN_LOG_COVERAGE, FittedIncumbent
from tunepoint.models.chat import Prompt
from tunepoint.models.production_log import read_production_log
from tunepoint.trials.trial import Trial, TrialLog

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77_qwen3"
COST = "[1e-5, 3e-5, 1e-4]"
"""Dollars of a query to the recorded model, declared because its tokens were not recorded."""


def examples(path: Path) -> list[Example]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Example(row["id"], row["text"], row["label"]) for row in rows]


def write(path: Path, rows: list[Example]) -> None:
    lines = [json.dumps({"id": e.id, "text": e.input, "label": e.target}) for e in rows]
    path.write_text("\n".join(lines) + "\n")


def study(data: Path, rung: str, work: Path) -> Task:
    """Write a task with the recordings' own splits; `rung` says how many examples a label has."""
    chosen = set(json.loads((data / "splits" / "rungs" / f"rung_{rung}.json").read_text()))
    pool = examples(data / "splits" / "train_pool.jsonl")
    write(work / "train.jsonl", [e for e in pool if e.id in chosen])
    write(work / "dev.jsonl", examples(data / "splits" / "dev.jsonl"))
    write(work / "test.jsonl", examples(data / "splits" / "test.jsonl"))
    paths = {part: f"{part}.jsonl" for part in ("train", "dev", "test")}
    content = {
        "name": "banking77",
        "instruction": "Say which intent the customer's message has.",
        "data": {**paths, "input": "text", "target": "label", "id": "id"},
    }
    return Task.parse(content, folder=work)


def recorded_trials(folder: Path, test: list[Example], labels: tuple[str, ...], work: Path) -> list[Trial]:
    """Read one recording as trials."""
    log = work / f"{folder.name}.jsonl"
    with gzip.open(folder / "predictions.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    log.write_text("".join(json.dumps({"item": row["id"], "output": row["raw"]}) + "\n" for row in rows))
    ids = {example.input: example.id for example in test}
    arm = FittedIncumbent(folder.name, read_production_log(log, folder.name), Prompt("", labels=labels), ids)
    test = [example for example in test if arm.outputs.output_for(example.id, example.input) is not None]
    replies = arm.answer([example.input for example in test])
    return [
        Trial(arm=folder.name, item=e.id, score=float(r.answer == e.target), format_ok=r.format_ok)
        for e, r in zip(test, replies, strict=True)
    ]


def main() -> None:
    """Run the study, add the recordings, decide, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--rung", default="08")
    options = parser.parse_args()
    if not options.data.exists():
        print(f"{options.data} does not exist: skipped")
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        task = study(options.data, options.rung, work)
        measured = run(task, out=work / "study")
        assert measured.folder is not None
        arms = (measured.folder / "arms.toml").read_text()
        measured_items = {trial.item for trial in read_trials(measured.folder / "trials.jsonl")}
        test = [e for e in examples(work / "test.jsonl") if e.id in measured_items]
        labels = tuple(sorted({e.target for e in examples(work / "train.jsonl")}))
        (work / "all.jsonl").write_bytes((measured.folder / "trials.jsonl").read_bytes())
        log = TrialLog(work / "all.jsonl")
        for folder in sorted(options.data.glob("*/predictions.jsonl.gz")):
            recorded = recorded_trials(folder.parent, test, labels, work)
            if len(recorded) < MIN_LOG_COVERAGE * len(test):
                print(f"{folder.parent.name}: {len(recorded)} of {len(test)} items are recorded, left out")
                continue
            log.append(recorded)
            arms += f'\n[[arm]]\nname = "{folder.parent.name}"\nkind = "prompt"\nusd_per_query = {COST}\n'
        (work / "arms.toml").write_text(arms)
        decision = decide_trials(work / "all.jsonl", task, arms=work / "arms.toml").decision
    print(
        f"{decision.items} test items; verdict {decision.verdict}, {decision.strength}: {decision.winner}\n"
    )
    print("| arm | kind | score (95%) | readable | $ a 1,000 |\n|---|---|---|---|---|")
    for finalist in sorted(decision.finalists, key=lambda f: -f.score.estimate):
        score, cost = finalist.score, finalist.cost_per_query_usd.likely * 1000
        print(
            f"| {finalist.arm} | {finalist.kind} | "
            f"{score.estimate:.3f} ({score.low:.3f} to {score.high:.3f}) | "
            f"{finalist.format_ok:.1%} | {cost:.4f} |"
        )


if __name__ == "__main__":
    main()

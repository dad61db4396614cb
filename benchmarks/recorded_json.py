"""Recorded JSON extractions of GPT-4 and GPT-3.5 (ExtractGPT), scored field by field and decided.

Each recording is an arm on its dataset's test items: product titles in, attributes out. Its replies
are read as any reply is. An attribute's accepted values count as one value; n/a counts as absent. Tokens
are the recording's mean; prices are those of genai-prices. DATA is the folder of the recordings; where
it is missing the benchmark says so and skips.

    python benchmarks/recorded_json.py [DATA]
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from tunepoint import Example, Task, decide_trials
from tunepoint.models.chat import Prompt, Usage
from tunepoint.models.parsing import parse
from tunepoint.models.prices import call_price
from tunepoint.trials.scorers import json_fields, json_whole
from tunepoint.trials.trial import Trial, TrialLog

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "extractgpt" / "past_runs"
ABSENT = ("n/a", "", None)


def target(accepted: dict[str, dict[str, int]]) -> dict[str, str]:
    """Take the first accepted value of each attribute that the title has."""
    values_by_name = {name: next(iter(values), "") for name, values in accepted.items()}
    return {name: value for name, value in values_by_name.items() if value not in ABSENT}


def canonical(extracted: dict[str, Any], accepted: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Keep the annotated attributes, each accepted value replaced by the first accepted one.

    Attributes that nobody annotated for an item are neither right nor wrong.
    """
    present = {name: value for name, value in extracted.items() if value not in ABSENT and name in accepted}
    return {
        name: next(iter(accepted[name])) if str(value) in accepted.get(name, {}) else value
        for name, value in present.items()
    }


def micro_f1(content: dict[str, Any]) -> float:
    """Compute F1 over all pairs of all items, as the recordings' authors report it."""
    right = extracted = expected = 0
    for row in content["examples"]:
        parsed = parse(Prompt(row["input"], kind="json"), str(row["pred"]))
        answer = canonical(json.loads(parsed.answer or "{}"), row["target_scores"])
        true = target(row["target_scores"])
        right += sum(str(answer.get(name)) == value for name, value in true.items())
        extracted, expected = extracted + len(answer), expected + len(true)
    return 2 * right / (extracted + expected)


def trials(arm: str, content: dict[str, Any]) -> tuple[list[Trial], float]:
    """Read one recording as trials; also return the share of items that are right as a whole."""
    tokens = round(content["total_tokens"] / len(content["examples"]))
    name = f"openai/{content['model']}"
    price = call_price(name)
    trial_rows, whole_right = [], 0.0
    for number, row in enumerate(content["examples"]):
        parsed = parse(Prompt(row["input"], kind="json"), str(row["pred"]))
        example = Example(str(number), row["input"], json.dumps(target(row["target_scores"])))
        answer = "{}"
        if parsed.answer is not None:
            answer = json.dumps(canonical(json.loads(parsed.answer), row["target_scores"]))
        written = len(str(row["pred"])) // 4
        usage = Usage(name, tokens - written, 0, written)
        readable = parsed.answer is not None
        whole_right += json_whole(answer, example) if readable else 0.0
        trial_rows.append(
            Trial(
                arm=arm,
                item=str(number),
                score=json_fields(answer, example) if readable else 0.0,
                format_ok=readable,
                input_tokens=usage.input_tokens,
                output_tokens=written,
                cost_usd=price.dollars(usage) if price else None,
            )
        )
    return trial_rows, whole_right / len(trial_rows)


def label(path: Path, content: dict[str, Any]) -> str:
    """Name a recording for its table."""
    kind = "list" if "__list-" in path.name else "JSON schema"
    ensemble = ", ensemble" if "ensembling" in content["task_name"] else ""
    return f"{content['model']}, {kind}{ensemble}, {content.get('train_percentage', 'all')} of train"


def main() -> None:
    """Score and decide each dataset's recordings, and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    options = parser.parse_args()
    if not options.data.exists():
        print(f"{options.data} does not exist: skipped")
        return
    datasets: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for path in sorted(options.data.glob("*.gz")):
        with gzip.open(path, "rt") as file:
            content = json.load(file)
        datasets[content["dataset_name"]][label(path, content)] = content
    for dataset, recordings in datasets.items():
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "trials.jsonl"
            log, wholes = TrialLog(path), {}
            arms = ""
            for arm, content in recordings.items():
                rows, wholes[arm] = trials(arm, content)
                log.append(rows)
                arms += f'[[arm]]\nname = "{arm}"\nkind = "prompt"\n'
            (Path(temporary) / "arms.toml").write_text(arms)
            task = Task.parse({"name": dataset, "answer": {"kind": "json"}})
            decision = decide_trials(path, task, arms=Path(temporary) / "arms.toml").decision
        print(f"\n{dataset}, {decision.items} items: {decision.strength or 'undecided'}, {decision.winner}\n")
        print(
            "| arm | fields, F1 (95%) | all pairs, F1 | published | whole | readable | $ a query |\n"
            "|---|---|---|---|---|---|---|"
        )
        for finalist in sorted(decision.finalists, key=lambda f: -f.score.estimate):
            score = finalist.score
            print(
                f"| {finalist.arm} | {score.estimate:.3f} ({score.low:.3f} to {score.high:.3f}) | "
                f"{micro_f1(recordings[finalist.arm]):.3f} | "
                f"{recordings[finalist.arm]['results']['micro']['micro_f1'] / 100:.3f} | "
                f"{wholes[finalist.arm]:.3f} | {finalist.format_ok:.1%} | "
                f"{finalist.cost_per_query_usd.likely:.4f} |"
            )


if __name__ == "__main__":
    main()

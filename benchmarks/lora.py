"""A language model of this machine on banking77: its own best prompt against the same weights, tuned.

DATA is a folder with banking77's train.csv and test.csv (columns text and category). The first `--labels`
labels by name are kept, with 20 training and 8 validation examples each, and all their test messages. The
model is tuned by `tunepoint tune --gguf` in a process of its own, once without a break and once killed
behind its first checkpoint; then llama.cpp answers the test messages from the file that was written, with
each length of prompt, beside prompts of the untouched model. The best prompt is the best on the test
itself, which favors prompting.

    python benchmarks/lora.py DATA [--base embedded:smollm2-135m] [--labels 8] [--epochs 2] [--out DIR]
        [--forms plain json letter]
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from language_model import FORMS, STYLES
from numpy.typing import NDArray
from public_tasks import rows
from safetensors.numpy import load_file

from tunepoint import Example, Task
from tunepoint.arms.causal.gguf_export import GGUF_FILE
from tunepoint.arms.prompting.chat_prompts import ChatPrompt
from tunepoint.arms.templates import PROMPT_LENGTHS, fill_template, template_for_length
from tunepoint.models.chat import AnswerForm, Reply
from tunepoint.models.encoder import Encoder
from tunepoint.models.endpoints import TextModel
from tunepoint.models.gguf.endpoint import GgufEndpoint
from tunepoint.models.gguf.opening import open_gguf

TRAIN_PER_LABEL, DEV_PER_LABEL = 20, 8
Z95 = 1.959964
"""Of a two-sided 95% normal interval."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--base", default="embedded:smollm2-135m")
    parser.add_argument("--labels", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS, help="of labels in prompts")
    parser.add_argument("--out", type=Path, help="where to work; a temporary folder if missing")
    options = parser.parse_args()
    if not (options.data / "train.csv").exists():
        print(f"skipped: no train.csv in {options.data}")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run(options.data, folder, options.base, options.labels, options.epochs, options.forms)


def run(data: Path, folder: Path, base: str, labels: int, epochs: int, forms: Sequence[AnswerForm]) -> None:
    """Tune, kill and resume, compare; print a table and a line of JSON."""
    task = write_task(data, folder, labels)
    test = test_items(data, labels)
    started = time.monotonic()
    printed = tune(folder, base, epochs, folder / "whole")
    seconds = time.monotonic() - started
    print(printed)
    difference = killed_and_resumed(folder, base, epochs)
    train = training_examples(folder)
    tuned = tuned_scores(task, train, test, folder / "whole" / GGUF_FILE)
    prompted = prompted_scores(task, train, test, base, forms)
    best = max(prompted, key=lambda name: prompted[name].mean())
    print(f"{base}, {labels} labels, {len(train)} training examples, {len(test)} test messages")
    for name, scores in {**prompted, **tuned}.items():
        gain = scores - prompted[best]
        error = Z95 * gain.std(ddof=1) / np.sqrt(len(gain))
        print(
            f"{name:50} {scores.mean():.3f}   against {best}: {gain.mean():+.3f} "
            f"({gain.mean() - error:+.3f} to {gain.mean() + error:+.3f})"
        )
    print(
        f"tuning, export and its check: {seconds:.0f} s; killed and resumed: weights differ by {difference}"
    )
    print(
        json.dumps(
            {
                "base": base,
                "labels": labels,
                "seconds": round(seconds),
                "training_seconds": trained_seconds(folder / "whole"),
                "weights_differ_by": difference,
                "accuracy": {name: round(float(s.mean()), 4) for name, s in {**prompted, **tuned}.items()},
            }
        )
    )


def write_task(data: Path, folder: Path, labels: int) -> Task:
    """Write task.toml and the messages to train and choose on."""
    train = rows(data / "train.csv")
    kept = sorted({label for _, label in train})[:labels]
    order = np.random.default_rng(0).permutation(len(train)).tolist()
    with (folder / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for label in kept:
            texts = [train[i][0] for i in order if train[i][1] == label]
            # the split of the task takes a part for a test of its own, which nobody opens here
            writer.writerows([text, label] for text in texts[: TRAIN_PER_LABEL + 2 * DEV_PER_LABEL])
    total = TRAIN_PER_LABEL + 2 * DEV_PER_LABEL
    share = [TRAIN_PER_LABEL / total, DEV_PER_LABEL / total, DEV_PER_LABEL / total]
    content = f"""name = "banking77"
instruction = "Say which intent the customer's message has."

[data]
path = "messages.csv"
input = "text"
target = "label"
split = [{", ".join(f"{part:.6f}" for part in share)}]
"""
    (folder / "task.toml").write_text(content, encoding="utf-8")
    return Task.load(folder)


def training_examples(folder: Path) -> list[Example]:
    """The training set that the tuned model saw."""
    from tunepoint.data.prepare import prepare

    return list(prepare(Task.load(folder), 0).split.train)


def test_items(data: Path, labels: int) -> list[Example]:
    """All test messages of the labels."""
    test = rows(data / "test.csv")
    kept = set(sorted({label for _, label in test})[:labels])
    return [Example(f"test-{i}", text, label) for i, (text, label) in enumerate(test) if label in kept]


def command(folder: Path, base: str, epochs: int, out: Path) -> list[str]:
    words = ["tune", str(folder), "--base", base, "--epochs", str(epochs), "--seed", "0", "--yes"]
    return [str(Path(sys.executable).with_name("tunepoint")), *words, "--out", str(out)]


def tune(folder: Path, base: str, epochs: int, out: Path) -> str:
    """Tune without a break and write the GGUF file; return what was printed."""
    words = [*command(folder, base, epochs, out), "--gguf"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def killed_and_resumed(folder: Path, base: str, epochs: int) -> float:
    """Kill a run behind its first checkpoint, run again; return the largest difference of a weight."""
    out = folder / "killed"
    process = subprocess.Popen(
        command(folder, base, epochs, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(out.glob("runs/*/checkpoints/*/trainer_state.json")):
        time.sleep(0.1)
    if process.poll() is not None:
        raise SystemExit("the run ended before it could be killed")
    process.kill()
    process.wait()
    subprocess.run(command(folder, base, epochs, out), check=True, capture_output=True)
    whole, again = (
        load_file(place / "adapter" / "adapter_model.safetensors") for place in (folder / "whole", out)
    )
    return max(float(np.abs(whole[name] - again[name]).max()) for name in whole)


def trained_seconds(out: Path) -> float:
    facts = [json.loads(path.read_text()) for path in out.glob("runs/*/run.json")]
    return round(sum(float(fact["seconds"]) for fact in facts), 1)


def tuned_scores(
    task: Task, train: Sequence[Example], test: Sequence[Example], path: Path
) -> dict[str, NDArray[np.float64]]:
    """Scores of the tuned model by length of prompt, as llama.cpp answers from its file."""
    endpoint = GgufEndpoint(f"gguf:{path}", path)
    model, scores = TextModel(endpoint, remote=False), {}
    for length in PROMPT_LENGTHS:
        template = template_for_length(task, train, length)
        replies = model.answer([fill_template(template, example) for example in test])
        scores[f"tuned, prompt: {length}"] = right(replies, test)
    endpoint.close()
    return scores


def prompted_scores(
    task: Task, train: Sequence[Example], test: Sequence[Example], base: str, forms: Sequence[AnswerForm]
) -> dict[str, NDArray[np.float64]]:
    """Scores of ways of prompting the untouched model."""
    endpoint, encoder, scores = open_gguf(base, Path()), Encoder.load(), {}
    model = TextModel(endpoint, remote=False)
    for style in STYLES:
        for form in forms:
            arm = ChatPrompt(model, style, "plain", encoder.embed, form=form)
            fitted = arm.fit(task, train, np.random.default_rng(0))
            inputs = [example.input for example in test]
            scores[f"prompted, {style.name}, {form}"] = right(fitted.answer(inputs), test)
    endpoint.close()
    return scores


def right(replies: Sequence[Reply], test: Sequence[Example]) -> NDArray[np.float64]:
    """The (n,) scores of replies: 1 where right, else 0."""
    return np.array(
        [float(reply.answer == example.target) for reply, example in zip(replies, test, strict=True)]
    )


if __name__ == "__main__":
    main()

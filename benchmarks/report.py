"""Size and seconds of a report that holds every test example: first paint, and until the list can be used.

python benchmarks/report.py [--items 5000] [--arms 5]

It takes chromium. Each example has an input of 400 characters; two of the options send a prompt with eight
retrieved examples, one a fixed prompt of 8,000 characters.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from tunepoint import Task, Trial, decide_trials
from tunepoint.data.examples import Example
from tunepoint.report.html import rebuild_report
from tunepoint.study.items import write_items
from tunepoint.trials.trial import read_trials

INPUT, PROMPT = 400, 8_000
"""Characters."""
LABELS = [f"label {number}" for number in range(20)]


def words(rng: np.random.Generator, characters: int, vocabulary: list[str]) -> str:
    text = " ".join(vocabulary[i] for i in rng.integers(len(vocabulary), size=characters // 5))
    return text[:characters]


def write_study(folder: Path, items: int, arms: int) -> None:
    rng = np.random.default_rng(0)
    vocabulary = ["".join(chr(97 + c) for c in rng.integers(26, size=6)) for _ in range(4_000)]
    examples = [Example(str(i), words(rng, INPUT, vocabulary), LABELS[i % 20]) for i in range(items)]
    path = folder / "trials.jsonl"
    with path.open("w") as file:
        for arm in range(arms):
            right = rng.random(items) < 0.6 + 0.05 * arm
            for example, correct in zip(examples, right, strict=True):
                answer = example.target if correct else LABELS[int(rng.integers(20))]
                trial = Trial(
                    arm=f"arm {arm}",
                    item=example.id,
                    score=float(correct),
                    answer=answer,
                    input_tokens=900,
                    output_tokens=4,
                    cost_usd=1e-4,
                    seconds=0.4,
                )
                file.write(trial.line())
    decide_trials(path, Task.parse({"name": "bench"}), out=folder / "study")
    shown = [[examples[i].input for i in rng.integers(items, size=8)] for _ in range(items)]
    retrieved = ["\n".join([*near, example.input]) for near, example in zip(shown, examples, strict=True)]
    fixed = words(rng, PROMPT, vocabulary)
    prompts = {
        "arm 0": [f"{fixed}\n{example.input}" for example in examples],
        "arm 1": retrieved,
        "arm 2": retrieved,
    }
    names = [f"arm {arm}" for arm in range(arms)]
    write_items(folder / "study", read_trials(path), names, examples, prompts)


def opened(report: Path, browser_path: str) -> tuple[float, float]:
    """Seconds until the first paint, and until the list of examples is drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1_100, "height": 900})
        page.goto(report.resolve().as_uri())
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        page.evaluate("window.began = performance.now()")
        page.evaluate("document.getElementById('items').scrollIntoView()")
        page.wait_for_selector("#items-list .item")
        listed = page.evaluate("performance.now() - window.began")
        browser.close()
    return paint / 1_000, listed / 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--arms", type=int, default=5)
    options = parser.parse_args()
    browser = shutil.which("chromium")
    if browser is None:
        print("no chromium on the PATH", file=sys.stderr)
        raise SystemExit(2)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_study(folder, options.items, options.arms)
        report = rebuild_report(folder / "study")
        size = report.stat().st_size / 1e6
        paint, listed = opened(report, browser)
    print(f"{options.items} examples x {options.arms} options")
    print(f"{'report.html':<28}{size:8.2f} MB")
    print(f"{'first paint':<28}{paint:8.2f} s")
    print(f"{'list of examples':<28}{listed:8.2f} s")
    figures = {
        "benchmark": "report",
        "items": options.items,
        "arms": options.arms,
        "megabytes": round(size, 2),
        "first_paint_seconds": round(paint, 3),
        "list_seconds": round(listed, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""The whole loop on the example, with recorded traffic at speed: `make loop`.

It starts with some labeled messages. The others arrive as traffic, and people say of each answer
whether it was right. The best prompt of a small language model serves, 500 good examples are collected, a
model is tuned, tried on some users and promoted. Then a week of messages about a new product comes, and
the loop detects the drift.

    python examples/support-triage/loop.py [--out loop-demo] [--good 500] [--model embedded:smollm2-135m]
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LABELED = 330
"""Labeled messages at the start: 50 for the training set, 60 for validation, 220 for the sealed test."""
QUICK = ("--collect-first", "--per-label", "8", "--canary-requests", "60", "--canary-margin", "0.05")
"""Smaller than the defaults (10, 200 and .02), so that the example ends within minutes."""
SPLIT = "split = [0.15, 0.18, 0.67]"
RECORDED = (
    'name = "embedded:qwen2.5-coder-0.5b"\nreplies = "replies.jsonl"\n'
    'styles = ["zero-shot", "system message", "few-shot"]'
)
"""The model of the example's task, whose recorded replies are to messages that all have come already."""


def main() -> None:
    """Run the loop until it watches, change the traffic, and print the status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("loop-demo"))
    parser.add_argument("--good", type=int, default=500)
    parser.add_argument("--model", default="embedded:smollm2-135m", help="a language model of this machine")
    options = parser.parse_args()
    started = time.monotonic()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    print(tunepoint("models", "pull", options.model.removeprefix("embedded:")), flush=True)
    traffic = write_task(options.out, options.model)
    gateway = f"http://127.0.0.1:{free_port()}"
    task_arguments = [str(options.out / "task.toml"), "--store", str(options.out / "capture.sqlite")]
    loop_arguments = ["--out", str(options.out / "loop"), "--gateway", gateway, "--good", str(options.good)]

    def turn() -> str:
        line = tunepoint("loop", *task_arguments, *loop_arguments, *QUICK)
        print(f"{time.monotonic() - started:5.0f} s  {line}", flush=True)
        return line

    turn()  # measures what can be prompted, and waits for the gateway
    with serving(options.out / "loop" / "serve.toml", gateway):
        turn()
        count = replay(gateway, traffic, "week 1")
        print(f"{time.monotonic() - started:5.0f} s  {count} messages were answered and judged", flush=True)
        line = turn()  # collects, tunes, decides, starts the canary
        for round_ in range(2, 40):
            if "watch" in line:
                break
            replay(gateway, traffic, f"week {round_}")
            time.sleep(3)  # the gateway looks at its canaries every two seconds
            line = turn()
        replay(gateway, rows(HERE / "new_product.csv"), "a new product")
        turn()  # the inputs have changed
    print(tunepoint("status", *task_arguments))
    print(f"{time.monotonic() - started:.0f} s in all; everything is in {options.out}")


def write_task(folder: Path, model: str) -> list[dict[str, str]]:
    """Write a task with the first labeled messages and a model to ask; return the others as traffic."""
    messages = [row for row in rows(HERE / "messages.csv") if row["text"]]
    customers = sorted({row["customer_id"] for row in messages})
    place = dict(zip(customers, np.random.default_rng(5).permutation(len(customers)).tolist(), strict=True))
    shuffled = sorted(messages, key=lambda row: place[row["customer_id"]])  # a customer's stay together
    with (folder / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(messages[0]))
        writer.writeheader()
        writer.writerows(shuffled[:LABELED])
    text = (HERE / "task.toml").read_text(encoding="utf-8")
    text = text.replace('date = "date"', f'date = "date"\n{SPLIT}')
    if RECORDED not in text:
        raise SystemExit(f"{HERE / 'task.toml'}: no longer names the model that this replaces: {RECORDED}")
    text = text.replace(RECORDED, f'name = "{model}"\nstyles = ["zero-shot"]')
    (folder / "task.toml").write_text(text, encoding="utf-8")
    last = shuffled[LABELED - 1]["customer_id"]
    return [row for row in shuffled[LABELED:] if row["customer_id"] != last]


def rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def tunepoint(*words: str) -> str:
    """Run a command and return what it prints."""
    process = subprocess.run(
        [str(Path(sys.executable).with_name("tunepoint")), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise SystemExit(f"tunepoint {' '.join(words)}\n{process.stdout}{process.stderr}")
    return process.stdout.strip()


@contextmanager
def serving(settings: Path, gateway: str) -> Iterator[None]:
    """Run the gateway as its own process until the block ends."""
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("tunepoint")), "serve", str(settings)], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{gateway}/healthz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait(60)


def replay(gateway: str, messages: list[dict[str, str]], when: str) -> int:
    """Send each message, and give feedback: the answer was right, or what would have been."""

    def ask(row: dict[str, str]) -> None:
        request = {
            "model": "support-triage",
            "messages": [{"role": "user", "content": row["text"]}],
            "user": f"{row['customer_id']}, {when}",
        }
        reply = post(f"{gateway}/v1/chat/completions", request)
        answer = reply["choices"][0]["message"]["content"]
        feedback: dict[str, Any] = (
            {"thumbs": "up"} if answer == row["queue"] else {"correction": row["queue"]}
        )
        post(f"{gateway}/v1/feedback", {"request_id": f"req_{reply['id'][9:]}", **feedback})

    with ThreadPoolExecutor(8) as pool:
        return len(list(pool.map(ask, messages)))


def post(url: str, body: Any) -> Any:
    """Post JSON and return the JSON of the reply."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


if __name__ == "__main__":
    main()

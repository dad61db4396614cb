"""The whole loop on the example, with recorded traffic at speed: `make loop`.

Some labelled messages are there at first; the others arrive as traffic, and people say of each answer
whether it was right. A prompt serves, 500 good examples are collected, a model is tuned, tried on some
users, promoted; then a week of messages about a new product comes, and the drift is seen.

    python examples/support-triage/loop.py [--out loop-demo] [--good 500]
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
LABELLED = 330
"""Messages that are labelled at first: 50 to prompt with, 60 to choose by, 220 for the sealed test."""
QUICK = ("--per-label", "8", "--canary-requests", "60", "--canary-margin", "0.05")
"""A laptop's patience: the defaults are 10, 200 and .02."""
SPLIT = "split = [0.15, 0.18, 0.67]"


def main() -> None:
    """Go round once, and print the audit log."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("loop-demo"))
    parser.add_argument("--good", type=int, default=500)
    said = parser.parse_args()
    started = time.monotonic()
    shutil.rmtree(said.out, ignore_errors=True)
    said.out.mkdir(parents=True)
    traffic = prepared(said.out)
    gateway = f"http://127.0.0.1:{free_port()}"
    words = [str(said.out / "task.toml"), "--store", str(said.out / "capture.sqlite")]
    going = ["--out", str(said.out / "loop"), "--gateway", gateway, "--good", str(said.good)]

    def turn() -> str:
        line = tunepoint("loop", *words, *going, *QUICK)
        print(f"{time.monotonic() - started:5.0f} s  {line}", flush=True)
        return line

    turn()  # measures what can be prompted, and waits for the gateway
    with serving(said.out / "loop" / "serve.toml", gateway):
        turn()
        asked = replay(gateway, traffic, "week 1")
        print(f"{time.monotonic() - started:5.0f} s  {asked} messages were answered and judged", flush=True)
        line = turn()  # collects, tunes, decides, starts the canary
        for round_ in range(2, 40):
            if "watch" in line:
                break
            replay(gateway, traffic, f"week {round_}")
            time.sleep(3)  # the gateway looks at its canaries every two seconds
            line = turn()
        replay(gateway, rows(HERE / "new_product.csv"), "a new product")
        turn()  # the inputs are others now
    print(tunepoint("status", *words))
    print(f"{time.monotonic() - started:.0f} s in all; everything is in {said.out}")


def prepared(folder: Path) -> list[dict[str, str]]:
    """A task with some labelled messages; the others, as traffic."""
    messages = [row for row in rows(HERE / "messages.csv") if row["text"]]
    customers = sorted({row["customer_id"] for row in messages})
    place = dict(zip(customers, np.random.default_rng(5).permutation(len(customers)).tolist(), strict=True))
    shuffled = sorted(messages, key=lambda row: place[row["customer_id"]])  # a customer's stay together
    with (folder / "messages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(messages[0]))
        writer.writeheader()
        writer.writerows(shuffled[:LABELLED])
    text = (HERE / "task.toml").read_text(encoding="utf-8")
    (folder / "task.toml").write_text(
        text.replace('date = "date"', f'date = "date"\n{SPLIT}'), encoding="utf-8"
    )
    last = shuffled[LABELLED - 1]["customer_id"]
    return [row for row in shuffled[LABELLED:] if row["customer_id"] != last]


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def tunepoint(*words: str) -> str:
    """Run a command; what it prints."""
    found = subprocess.run(
        [str(Path(sys.executable).with_name("tunepoint")), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise SystemExit(f"tunepoint {' '.join(words)}\n{found.stdout}{found.stderr}")
    return found.stdout.strip()


@contextmanager
def serving(settings: Path, gateway: str) -> Iterator[None]:
    """The gateway, as an application would have it."""
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
    """Ask each message, and say whether the answer was right, or what would have been."""

    def one(row: dict[str, str]) -> None:
        asked = {
            "model": "support-triage",
            "messages": [{"role": "user", "content": row["text"]}],
            "user": f"{row['customer_id']}, {when}",
        }
        reply = post(f"{gateway}/v1/chat/completions", asked)
        answer = reply["choices"][0]["message"]["content"]
        right: dict[str, Any] = {"thumbs": "up"} if answer == row["queue"] else {"correction": row["queue"]}
        post(f"{gateway}/v1/feedback", {"request_id": f"req_{reply['id'][9:]}", **right})

    with ThreadPoolExecutor(8) as pool:
        return len(list(pool.map(one, messages)))


def post(url: str, body: Any) -> Any:
    """The JSON that comes back."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


if __name__ == "__main__":
    main()

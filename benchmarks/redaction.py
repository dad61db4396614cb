"""How much planted personal data is taken out before capture, by kind; and what clean texts lose.

Each planted value stands inside a sentence of the example's messages. Prints the recall by kind, and the
share of the example's messages that lose something although they hold no personal data.

    python benchmarks/redaction.py [--each 200]
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn

from tunepoint.capture.redaction import PatternRedactor

MESSAGES = Path(__file__).parents[1] / "examples" / "support-triage" / "messages.csv"
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "SE", "PL", "IN", "JP", "BR", "ZA", "AU", "MX", "TR")
FORMATS = phonenumbers.PhoneNumberFormat


def planted(rng: np.random.Generator) -> dict[str, Callable[[], str]]:
    """Return a generator of personal data for each kind."""

    def digits(count: int) -> str:
        return "".join(map(str, rng.integers(0, 10, count).tolist()))

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    def email() -> str:
        user = pick(("jo", "anna.maria", "k+shop", "o'neil", "x_y", "first-last")) + digits(2)
        return f"{user}@{pick(('mail', 'post.office', 'my-firm'))}.{pick(('com', 'co.uk', 'example', 'io'))}"

    def phone(regions: tuple[str, ...], form: int) -> str:
        kind = int(rng.integers(0, 2))  # fixed line or mobile
        number = phonenumbers.example_number_for_type(pick(regions), kind)
        return phonenumbers.format_number(number, form)

    def card() -> str:
        start = pick(("4", "51", "37", "6011")) + digits(20)
        plain = start[: 14 if start.startswith("37") else 15]
        plain += luhn.calc_check_digit(plain)
        return " ".join(plain[i : i + 4] for i in range(0, len(plain), 4)) if rng.random() < 0.5 else plain

    def account() -> str:
        country, size = [("DE", 18), ("NL", None), ("AT", 16), ("LT", 16)][int(rng.integers(4))]
        body = "ABNA" + digits(10) if size is None else digits(size)
        plain = country + iban.calc_check_digits(f"{country}00{body}") + body
        return " ".join(plain[i : i + 4] for i in range(0, len(plain), 4)) if rng.random() < 0.5 else plain

    def social() -> str:
        while not ssn.is_valid(number := f"{digits(3)}-{digits(2)}-{digits(4)}"):
            pass
        return number

    return {
        "e-mail address": email,
        "phone, with country code": lambda: phone(REGIONS, FORMATS.INTERNATIONAL),
        "phone, E.164": lambda: phone(REGIONS, FORMATS.E164),
        "phone, national, US and GB": lambda: phone(("US", "GB"), FORMATS.NATIONAL),
        "phone, national, elsewhere": lambda: phone(REGIONS[2:], FORMATS.NATIONAL),
        "payment card": card,
        "bank account (IBAN)": account,
        "US social security number": social,
        "IP address": lambda: ".".join(map(str, rng.integers(1, 255, 4).tolist())),
        "API key": lambda: f"sk-{digits(12)}abcDEF{digits(12)}",
        "name of a person": lambda: pick(("Anna Schmidt", "Jo O'Neil", "Rajesh Kumar", "Maria Lopez")),
    }


def main() -> None:
    """Print the recall by kind, and how many clean texts lose something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=200)
    options = parser.parse_args()
    with MESSAGES.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["text"]]
    rng, redact = np.random.default_rng(0), PatternRedactor()
    results: dict[str, float] = {}
    for kind, make in planted(rng).items():
        removed = 0
        for number in range(options.each):
            value = make()
            text = f"{texts[number % len(texts)]} My details: {value}, thanks."
            removed += value not in redact(text)
        results[kind] = removed / options.each
        print(f"{kind:30}{results[kind]:8.1%}")
    started = time.perf_counter()
    lost = [text for text in texts if redact(text) != text]
    seconds_each = (time.perf_counter() - started) / len(texts)
    results["clean texts changed"] = len(lost) / len(texts)
    share = len(lost) / len(texts)
    print(f"{'texts that lose something':30}{share:8.1%} of {len(texts)}, {seconds_each * 1e6:.0f} us each")
    for text in lost[:5]:
        print(f"    {redact(text)[:120]}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()

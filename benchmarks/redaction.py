"""What is found of personal data, what is taken for it by mistake, and how long hostile texts take.

A labeled set is generated from a seed. Each value stands in one of several sentences. For true kinds, the
share that is removed is printed; for the numbers that only look like one, the share that loses something.
Then texts made to be slow, in seconds per MB, and the example's messages.

    python benchmarks/redaction.py [--each 400] [--other OLD_REDACTION.PY] [--kilobytes 1000]

`--other` measures another file with a `PatternRedactor` as well, such as one of an earlier commit:
`git show COMMIT:tunepoint/capture/redaction.py`.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn

from tunepoint.capture.redaction import PatternRedactor, Redactor

MESSAGES = Path(__file__).parents[1] / "examples" / "support-triage" / "messages.csv"
REGIONS = ("DE", "FR", "ES", "IT", "NL", "SE", "PL", "IN", "JP", "BR", "ZA", "AU", "MX", "TR")
FORMATS = phonenumbers.PhoneNumberFormat
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
PLAIN = ("My details: {}, thanks.", "It says {} here.", "{}", "Please change it to {}.", "({})")
CALLS = ("Call me at {}.", "Phone: {}", "You can reach me on {} or by mail.", "{} is my mobile.", "tel {}")
NUMBERED = (
    "Where is order {}?",
    "Invoice {} is wrong.",
    "It says {} here.",
    "{}",
    "I called about ticket {}.",
)
LIMIT_SECONDS = 10
"""A hostile text is given up after that."""
HOSTILE = {
    "AB12AAAA... with numbers": "AB12" + "A" * 34 + " 1234567 ",
    "starts of IBANs": "DE89 ",
    "digits": "1",
    "digits and spaces": "1 2 ",
    "wrong cards": "4111 1111 1111 1112 ",
    "phone numbers": "+49 151 2345 6789 ",
    "wrong phone numbers": "01 23 45 67 8 ",
    "at signs": "a@b.1.",
    "starts of keys": "eyJhbGciOi.",
    "colons": "::",
    "letters": "a",
}


class Generator:
    """Makes values of each kind; equal seeds make equal values."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def digits(self, count: int) -> str:
        return "".join(map(str, self.rng.integers(0, 10, count).tolist()))

    def letters(self, count: int, alphabet: str = ALPHABET) -> str:
        return "".join(alphabet[i] for i in self.rng.integers(0, len(alphabet), count).tolist())

    def pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def email(self) -> str:
        user = self.pick(("jo", "anna.maria", "k+shop", "o'neil", "jörg", "first-last")) + self.digits(2)
        host = self.pick(("mail", "post.office", "my-firm", "müller"))
        return f"{user}@{host}.{self.pick(('com', 'co.uk', 'example', 'io'))}"

    def phone(self, regions: tuple[str, ...], form: int) -> str:
        """A valid number of one of the regions: the last digits of the example number are drawn."""
        kind = int(self.rng.integers(0, 2))  # fixed line or mobile
        region = self.pick(regions)
        known = phonenumbers.national_significant_number(phonenumbers.example_number_for_type(region, kind))
        while True:
            number = phonenumbers.parse(f"{known[:-4]}{self.digits(4)}", region)
            if phonenumbers.is_valid_number(number):
                return phonenumbers.format_number(number, form)

    def bare_phone(self) -> str:
        return "".join(filter(str.isdigit, self.phone(("US", "GB", *REGIONS), FORMATS.NATIONAL)))

    def card(self) -> str:
        start = self.pick(("4", "51", "37", "6011", "2223")) + self.digits(20)
        plain = start[: 14 if start.startswith("37") else 15]
        plain += luhn.calc_check_digit(plain)
        return self.in_fours(plain)

    def account(self) -> str:
        country, size = [("DE", 18), ("NL", None), ("AT", 16), ("LT", 16)][int(self.rng.integers(4))]
        body = "ABNA" + self.digits(10) if size is None else self.digits(size)
        return self.in_fours(country + iban.calc_check_digits(f"{country}00{body}") + body)

    def in_fours(self, plain: str) -> str:
        grouped = " ".join(plain[i : i + 4] for i in range(0, len(plain), 4))
        return grouped if self.rng.random() < 0.5 else plain

    def social(self) -> str:
        while not ssn.is_valid(number := f"{self.digits(3)}-{self.digits(2)}-{self.digits(4)}"):
            pass
        return number

    def ipv4(self) -> str:
        return ".".join(map(str, self.rng.integers(1, 255, 4).tolist()))

    def ipv6(self) -> str:
        groups = [self.letters(4, "0123456789abcdef") for _ in range(6)]
        return ":".join(["2001", "db8", *(groups if self.rng.random() < 0.5 else [groups[0], "", "1"])])

    def key(self) -> str:
        lengths = {"sk-proj-": 40, "tp-": 43, "hf_": 34, "AIza": 35, "gsk_": 52, "glpat-": 20, "ghp_": 36}
        prefix = self.pick((*lengths, "github_pat_", "ASIA", "AKIA", "eyJ"))
        if prefix == "eyJ":
            return f"eyJhbGciOiJIUzI1NiJ9.eyJ{self.letters(40)}.{self.letters(43)}"
        if prefix == "github_pat_":
            return f"{prefix}{self.letters(22)}_{self.letters(59)}"
        return prefix + (
            self.letters(lengths[prefix]) if prefix in lengths else self.letters(16, ALPHABET[:26])
        )

    def decimal(self) -> str:
        return f"{self.rng.random() * 10 ** int(self.rng.integers(0, 4)):.{int(self.rng.integers(5, 11))}f}"

    def date(self) -> str:
        day = self.rng.integers((1990, 1, 1), (2030, 13, 29)).tolist()
        written = ("{}-{:02}-{:02} 12:30", "{}-{:02}-{:02}T12:30:45.123Z", "{0}{1:02}{2:02}")
        return self.pick((*written, "{2:02}.{1:02}.{0}", "{1}/{2}/{0}")).format(*day)

    def version(self) -> str:
        form = self.pick(("v{}.{}.{}", "version {}.{}.{}.1", "{}.{}.{}-beta", "build {}.{}.{}.2048"))
        return form.format(*self.rng.integers(0, 120, 3).tolist())

    def price(self) -> str:
        amount = int(self.digits(7)) + 1_000_000
        return self.pick(("${:,}.50", "{} EUR", "€{}", "USD {}.00", "{:,}")).format(amount)

    def order(self) -> str:
        return str(int(self.rng.integers(10**9, 10**10)))


Kind = tuple[Callable[[], str], tuple[str, ...]]


def true_kinds(make: Generator) -> dict[str, Kind]:
    """Return how to make personal data of each kind, and the sentences that it stands in."""
    return {
        "e-mail address": (make.email, PLAIN),
        "phone, with country code": (
            lambda: make.phone(("US", "GB", *REGIONS), FORMATS.INTERNATIONAL),
            PLAIN,
        ),
        "phone, E.164": (lambda: make.phone(("US", "GB", *REGIONS), FORMATS.E164), PLAIN),
        "phone, national, US and GB": (lambda: make.phone(("US", "GB"), FORMATS.NATIONAL), PLAIN),
        "phone, national, 14 other countries": (lambda: make.phone(REGIONS, FORMATS.NATIONAL), PLAIN),
        "the same after a word": (lambda: make.phone(REGIONS, FORMATS.NATIONAL), CALLS),
        "phone in one block after a word": (make.bare_phone, CALLS),
        "payment card": (make.card, PLAIN),
        "bank account (IBAN)": (make.account, PLAIN),
        "US social security number": (make.social, PLAIN),
        "IPv4 address": (make.ipv4, PLAIN),
        "IPv6 address": (make.ipv6, PLAIN),
        "API key": (make.key, PLAIN),
    }


def false_kinds(make: Generator) -> dict[str, Kind]:
    """Return how to make numbers that are no personal data, and the sentences that they stand in."""
    return {
        "order number, 10 digits": (make.order, NUMBERED),
        "order number, 13 digits": (lambda: f"{make.order()}{make.digits(3)}", NUMBERED),
        "tracking number, 16 digits": (lambda: f"{make.order()}{make.digits(6)}", NUMBERED),
        "decimal": (make.decimal, PLAIN),
        "date and time": (make.date, (*PLAIN, "Call me on {}.")),
        "version": (make.version, PLAIN),
        "hash": (lambda: make.letters(40, "0123456789abcdef"), PLAIN),
        "UUID": (lambda: str(uuid.UUID(bytes=make.rng.bytes(16))), PLAIN),
        "price": (make.price, PLAIN),
        "Unix time": (lambda: str(int(make.rng.integers(1_600_000_000, 1_800_000_000))), PLAIN),
    }


def share(kind: Kind, each: int, counts: Callable[[str, str], bool], rng: np.random.Generator) -> float:
    """Return the share of values of a kind that count, given the value and its sentence."""
    make, sentences = kind
    values = [make() for _ in range(each)]
    chosen = [sentences[i] for i in rng.integers(0, len(sentences), each).tolist()]
    return sum(counts(value, text.format(value)) for value, text in zip(values, chosen, strict=True)) / each


def measured(redact: Redactor, each: int) -> dict[str, float]:
    """Return the recall of each true kind, and the false finds of each other kind."""
    make, rng = Generator(0), np.random.default_rng(1)
    recall = {
        name: share(kind, each, lambda value, text: value not in redact(text), rng)
        for name, kind in true_kinds(make).items()
    }
    false = {
        name: share(kind, each, lambda _, text: redact(text) != text, rng)
        for name, kind in false_kinds(make).items()
    }
    return recall | {f"not personal: {name}": value for name, value in false.items()}


def seconds_per_mb(redact: Redactor, unit: str, kilobytes: int) -> float:
    """Return the seconds for a hostile text, over its megabytes; infinite if it was given up."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_SECONDS)
    started = time.perf_counter()
    try:
        redact(unit * (kilobytes * 1000 // len(unit)))
    except TimeoutError:
        return float("inf")
    finally:
        signal.alarm(0)
    return (time.perf_counter() - started) / (kilobytes / 1000)


def other_redactor(path: Path) -> Redactor:
    """Load the `PatternRedactor` of another file."""
    spec = importlib.util.spec_from_file_location("other_redaction", path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    redact: Redactor = module.PatternRedactor()
    return redact


def main() -> None:
    """Print the tables, and a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=400)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--kilobytes", type=int, default=1000)
    options = parser.parse_args()
    redactors: dict[str, Redactor] = {"other": other_redactor(options.other)} if options.other else {}
    redactors["this"] = PatternRedactor()
    with MESSAGES.open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["text"]]
    results: dict[str, dict[str, float | None]] = {}
    for name, redact in redactors.items():
        rows: dict[str, float] = measured(redact, options.each)
        started = time.perf_counter()
        rows["messages of the example that change"] = sum(redact(text) != text for text in texts) / len(texts)
        rows["us for each message"] = (time.perf_counter() - started) / len(texts) * 1e6
        for label, unit in HOSTILE.items():
            rows[f"s/MB: {label}"] = seconds_per_mb(redact, unit, options.kilobytes)
        results[name] = {key: value if np.isfinite(value) else None for key, value in rows.items()}
    print(f"{'':44}" + "".join(f"{name:>12}" for name in results))
    for key in results["this"]:
        cells = (results[name][key] for name in results)
        print(f"{key:44}" + "".join(cell(key, value) for value in cells))
    print(json.dumps(results))


def cell(key: str, value: float | None) -> str:
    """One value of the table: seconds and microseconds as they are, shares in percent."""
    if value is None:
        return f"{'given up':>12}"
    return f"{value:12.2f}" if key.startswith(("s/MB", "us ")) else f"{value:12.1%}"


if __name__ == "__main__":
    main()

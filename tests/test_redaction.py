"""Personal data is found, numbers that only look like it stay, and no text holds anybody up."""

from __future__ import annotations

import time

import pytest

from tunepoint.capture.redaction import PatternRedactor, for_one_request
from tunepoint.data.personal.budget import TimeBudget
from tunepoint.data.personal.finder import find_personal_data


def test_findings_say_where_they_are() -> None:
    text = "é jörg@müller.example, card 4111 1111 1111 1111"
    findings = [(text[f.start : f.end], f.kind) for f in find_personal_data(text)]
    assert findings == [("jörg@müller.example", "email"), ("4111 1111 1111 1111", "card")]


# -- phone numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        "+49 151 2345 6789",
        "+4915123456789",
        "+44 (0)20 7946 0958",
        "(+33) 1 23 45 67 89",
        "0044 20 7946 0958",
        "+1 (415) 555-2671",
        "(212) 736-5000",
        "555-123-4567",
        "212.736.5000",
        "1-800-555-0199",
        "020 7946 0958",
        "07400 123456",
        "07400123456",
        "06 12 34 56 78",
        "06.12.34.56.78",
        "(030) 90182012",
        "089/12345678",
        "03-1234-5678",
        "(11) 96123-4567",
        "０３−１２３４−５６７８",
        "٠٣-١٢٣٤-٥٦٧٨",
        "(212) 736-5000 ext. 22",
        "(212) 736-5000x22",
    ],
)
def test_a_number_in_the_shape_of_a_phone_number_is_found(number: str) -> None:
    assert PatternRedactor()(f"It is {number}.") == "It is <phone>."


@pytest.mark.parametrize(
    "text",
    [
        "call me at {}",
        "Tel. {}",
        "tel:{}",
        "mobile: {}",
        "{} is my phone",
        "{} (mobile)",
        "?phone={}",
        "wa.me/{}",
        "Contact: {}",
        "電話{}",
        "Rufnummer: {}",
        "order 17, phone {}",
    ],
)
def test_a_word_near_by_makes_any_number_a_phone_number(text: str) -> None:
    assert PatternRedactor()(text.format("4829103847")) == text.format("<phone>")


@pytest.mark.parametrize(
    "text",
    [
        "order 4829103847",
        "order #2125551234",
        "4155552671 is my order number",
        "please call about invoice 4155552671",
        "my phone broke, ticket 4155552671, call me",
        "INV-2024000123 and 4155552671-ABC",
        "/orders/4155552671?id=4155552671",
        "3.1415926535 and 0.2125551234, 2125551234.5",
        "(415.1234567) and (0.4155552671)",
        "52.5200066, 13.404954 or 40.712776 -74.005974",
        "call on 2024-05-06 12:30:45.123456, 05.12.2024 or 20240506123000",
        "call in 2024-2025",
        "$2125551234, 12 500 000 EUR and 12500000.50 €",
        "550e8400-e29b-41d4-a716-446655440000",
        "d41d8cd98f00b204e9800998ecf8427e",
        "ISBN 978-0-306-40615-7",
        "at 1717171717 or 1717171717123",
        "12345678901234567890",
    ],
)
def test_other_numbers_are_no_phone_numbers(text: str) -> None:
    assert PatternRedactor()(text) == text


def test_each_number_of_a_list_is_found() -> None:
    assert PatternRedactor()("07400 123456 07400 123457 020 7946 0958") == "<phone> <phone> <phone>"
    assert PatternRedactor()("020 7946 0958 " * 50) == "<phone> " * 50


def test_few_random_order_numbers_and_decimals_are_taken_for_phone_numbers() -> None:
    redact = PatternRedactor()
    orders = [f"order {(48_271_828_459 * n) % 9_000_000_000 + 1_000_000_000} came" for n in range(1, 300)]
    decimals = [f"a factor of {n / 7:.9f}" for n in range(1, 300)]
    assert [text for text in orders + decimals if redact(text) != text] == []


def test_the_regions_say_whose_numbers_need_no_country_code() -> None:
    assert PatternRedactor(["ES"])("son 612 34 56 78") == "son <phone>"
    assert PatternRedactor(["US"])("son 612 34 56 78") == "son 612 34 56 78"


# -- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdEFGH1234567890xyz",
        "sk_live_abcdEFGH1234567890xyz",
        "tp-q3bN0cVtYwX8hR5mKz2LdJ7sFgA9pE1uTi4oQ6_-vBk",
        "sk-abcd1234-efgh5678",
        "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "gsk_abcdefghijklmnopqrst1234567890",
        "glpat-abcDEF1234567890abcd",
        "AKIAABCDEFGHIJKLMNOP",
        "ASIAABCDEFGHIJKLMNOP",
        "xoxb-123456789012-abcdefGHIJKL",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "Bearer abcdefghijklmnop1234567890==",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1234567890\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_keys_are_found_by_their_prefix(key: str) -> None:
    for before, after in (("key ", " here"), ("KEY=", ""), ('"', '"'), ("(", ").")):
        assert PatternRedactor()(f"{before}{key}{after}") == f"{before}<secret>{after}"


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-in-a-nutshell-and-more",
        "a task-force-of-many-many-many-people",
        "tp-link-archer-ax1800-wifi6-router-and-more-words",
        "pk_order_item_identifier",
        "bearer of the good news",
        "ASIAN and AKIAs",
    ],
)
def test_words_that_begin_like_a_key_stay(text: str) -> None:
    assert PatternRedactor()(text) == text


# -- addresses and accounts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("from 2001:db8::8a2e:370:7334, it", "from <ip>, it"),
        ("from 2001:0db8:85a3:0000:0000:8a2e:0370:7334.", "from <ip>."),
        ("http://[fe80::1]:80/ and ::ffff:192.0.2.1", "http://[<ip>]:80/ and <ip>"),
        ("ip:2001:db8::1: down", "ip:<ip>: down"),
        ("at 12:30:45, std::vector, a[1::2], be::ad", "at 12:30:45, std::vector, a[1::2], be::ad"),
        ("mac aa:bb:cc:dd:ee:ff", "mac aa:bb:cc:dd:ee:ff"),
        ("00:11:22:33:44:55:66:77", "00:11:22:33:44:55:66:77"),
        ("version 10.0.19.1, v1.2.3.4 and 1.2.3.4.5", "version 10.0.19.1, v1.2.3.4 and 1.2.3.4.5"),
        ("?to=jo%40mail.example&x=1", "?to=<email>&x=1"),
        ("是jo@mail.example请", "是<email>请"),
        ("pkg@1.2.3 and @handle", "pkg@1.2.3 and @handle"),
        ("12/27 4111 1111 1111 1111 123", "12/27 <card> 123"),
        ("3782 822463 10005", "<card>"),
        ("card 4111 1111 1111 1112", "card 4111 1111 1111 1112"),
        ("0.4111111111111111", "0.4111111111111111"),
        ("de89370400440532013000", "<account>"),
        ("DE89-3704-0044-0532-0130-00.", "<account>."),
        ("GB82 WEST 1234 5698 7654 32 PLEASE", "<account> PLEASE"),
        ("DE89 3704 0044 0532 0130 01 X", "DE89 3704 0044 0532 0130 01 X"),
    ],
)
def test_addresses_cards_and_accounts_are_told_from_their_likes(text: str, kept: str) -> None:
    assert PatternRedactor()(text) == kept


# -- time ---------------------------------------------------------------------------------------

HOSTILE = [
    "AB12" + "A" * 34,
    "AB12" + "A" * 34 + " 1234567 ",
    "AB12 ",
    "DE89 3704 0044 0532 0130 01 ",
    "1",
    "1 2 ",
    "1-",
    "01 23 45 67 8 ",
    "4111 1111 1111 1112 ",
    "+49 151 2345 6789 ",
    "a@",
    "a@b.1.",
    "sk-",
    "eyJhbGciOi.",
    "-----BEGIN PRIVATE KEY-----",
    "::",
    "1.",
    "(",
    "é日",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_text_takes_linear_time(unit: str) -> None:
    started = time.perf_counter()
    PatternRedactor(seconds=0.05)(unit * (200_000 // len(unit)))
    # It takes a tenth of a second; one quadratic step would take minutes.
    assert time.perf_counter() - started < 10


class Clock:
    """A clock that goes on by a second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_what_is_not_verified_in_time_is_removed() -> None:
    text = "jo@mail.example, order 4829103847, 020 7946 0958, on the 5th"
    findings = find_personal_data(text, budget=TimeBudget(2.0, Clock()))
    kinds = {text[finding.start : finding.end]: finding.kind for finding in findings}
    assert kinds == {
        "jo@mail.example": "email",
        "4829103847, 020 7946 0958": "unverified",
    }


def test_the_texts_of_one_request_share_a_budget() -> None:
    text = "order 4829103847"
    assert for_one_request(PatternRedactor(seconds=60))(text) == text
    shared = for_one_request(PatternRedactor(seconds=0))
    assert [shared(text), shared(text)] == ["order <unverified>"] * 2


def test_another_redactor_stays_as_it_is() -> None:
    assert for_one_request(str.upper)("a") == "A"

"""Phone numbers: proposed by their shape, verified by the numbering plans of libphonenumber."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import phonenumbers
from phonenumbers import Leniency, NumberParseException, PhoneNumber, PhoneNumberMatcher

from tunepoint.data.personal.budget import TimeBudget
from tunepoint.data.personal.context import said_to_be_other, said_to_be_phone
from tunepoint.data.personal.page import Finding, Page, compiled

WIDE_REGIONS = (
    *("DE", "FR", "GB", "IT", "NL", "SE", "PL", "IN", "JP", "BR", "ZA", "AU", "TR", "CH"),
    *("AT", "BE", "IE", "FI", "NZ", "CN", "KR", "ES", "MX", "RU", "ID"),
)
"""Countries tried for grouped numbers that begin with 0 or with an area code in brackets."""
MIN_DIGITS, MAX_DIGITS = 7, 15
"""Digits of a phone number (ITU-T E.164)."""
WHOLE_DIGITS = 10
"""Digits from which a national number with its leading 0 is usually complete."""
MAX_GROUPS = 8
"""Groups of digits in which one is written, as in +49 (0) 151 23 45 67 89."""
RUN_DIGITS = 40
"""Digits looked at together; a longer run is read in pieces that overlap."""
MAX_TRIES = 4
"""Readings of one number that libphonenumber tries."""

_Span = tuple[int, int]
_RUN = compiled(rb"(?:[+(] ?){0,2}[0-9](?:[ .()/-]{0,3}[0-9]){6,39}")
_GROUP = re.compile(r"\d+")
_BREAK = re.compile(r"[ /(]")
"""Between two groups of digits: one number may end here, and the next begin."""
_EXTENSION = re.compile(r"\s{0,2}(?:x|ext\.?|extension|durchwahl)[\s.:]{0,2}\d{1,6}(?!\w)", re.IGNORECASE)
_DATE = re.compile(
    r"(?:19|20)\d\d([ ./-])\d\d?\1\d\d?|\d\d?([ ./-])\d\d?\2(?:19|20)?\d\d|"
    r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])(?:\d{4}|\d{6})?|(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d"
)
_DECIMAL = re.compile(r"(?:0|[1-9]\d{0,2})\.\d+|[1-9]\d*\.\d{1,2}")
_NANP = re.compile(r"(?:1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}")
"""A number of North America as it is written there; also one kept for examples, such as 555-123-4567."""


@dataclass(frozen=True)
class _Candidate:
    """Groups of digits that may be one number, with what touches them."""

    page: Page
    start: int
    end: int
    written: str
    digits: str

    @property
    def international(self) -> str | None:
        """The number with a plus sign, if it has a country code."""
        if self.written.lstrip("( ").startswith("+"):
            return self.written
        with_code = self.digits.startswith("00") and len(self.digits) >= MIN_DIGITS + 4
        return f"+{self.written.lstrip('(0')}" if with_code else None

    @property
    def grouped(self) -> bool:
        return not self.written.strip("+( )").isdigit()

    @property
    def glued(self) -> bool:
        """Whether it is a part of a longer number, of an amount or of a word."""
        before, after = self.page.ascii(self.start - 2, self.start), self.page.ascii(self.end, self.end + 2)
        fraction = len(before) == 2 and before[0].isdigit() and before[1] in ".,:-"
        decimals = after[:1] in (".", ",", ":") and after[1:].isdigit()
        sign = self.page.text[max(0, self.start - 1) : self.start] + self.page.text[self.end : self.end + 1]
        word = before[-1:].isalnum() or (after[:1].isalpha() and not self.extension)
        return fraction or decimals or word or after[:1].isdigit() or any(mark in "_%$€£¥" for mark in sign)

    @property
    def attached(self) -> bool:
        """Whether a hyphen, a slash or an equals sign ties it to a word, as in `INV-2024000123`."""
        before, after = self.page.ascii(self.start - 2, self.start), self.page.ascii(self.end, self.end + 2)
        return (len(before) == 2 and before[0].isalnum() and before[1] in "-/=") or (
            after[:1] in ("-", "/", "=") and after[1:].isalnum()
        )

    @property
    def extension(self) -> int:
        """Characters of an extension behind it."""
        match = _EXTENSION.match(self.page.text[self.end : self.end + 24])
        return match.end() if match else 0


class PhoneFinder:
    """Finds phone numbers with a country code, in a country's grouping, or beside a word such as "call".

    Args:
        regions: countries whose numbers are found without a country code (ISO 3166).

    """

    def __init__(self, regions: Sequence[str]) -> None:
        self.regions = tuple(regions)

    def find(self, page: Page, budget: TimeBudget) -> Iterator[Finding]:
        """Find phone numbers until the budget is spent."""
        position = 0
        while not budget.spent and (match := _RUN.search(page.folded, position)):
            start, position = match.span()
            run = match.group().decode()
            if not _is_date_or_decimal(run):
                groups = [_moved(group.span(), start) for group in _GROUP.finditer(run)]
                findings, position = self._find_in_run(page, match.span(), groups)
                yield from findings

    def _find_in_run(self, page: Page, run: _Span, groups: list[_Span]) -> tuple[list[Finding], int]:
        """Return the numbers in a run, and where to search on: before the end if the run was cut there."""
        findings, start, first = [], run[0], 0
        left = sum(end - begin for begin, end in groups)
        is_whole, is_begin = left < RUN_DIGITS, True
        while first < len(groups) and (is_whole or left > MAX_DIGITS + 2):
            count, end = self._phone_at(page, start, groups[first : first + MAX_GROUPS + 1], is_begin)
            if count:
                findings.append(Finding(start, end, "phone"))
            is_begin = count > 0
            taken = groups[first : first + max(1, count)]
            left -= sum(end - begin for begin, end in taken)
            first += len(taken)
            start = _with_bracket(page, groups[first][0]) if first < len(groups) else run[1]
        return findings, max(start, findings[-1].end if findings else start)

    def _phone_at(self, page: Page, start: int, groups: Sequence[_Span], is_begin: bool) -> tuple[int, int]:
        """Return how many groups from `start` on are one number, and where it ends; (0, 0) if none are.

        Args:
            page: the text.
            start: where the number would begin.
            groups: of digits, from there on.
            is_begin: whether no other digits stand before it, unless they are a phone number.

        """
        candidates = [
            (count, candidate)
            for count in range(_most_groups(page, groups), 0, -1)
            if (count == len(groups) or _BREAK.search(page.ascii(groups[count - 1][1], groups[count][0])))
            and (candidate := _candidate(page, start, groups[count - 1][1])) is not None
        ]
        tests: list[Callable[[_Candidate], bool]] = [self._is_at_home, self._is_likely]
        if is_begin:
            tests.insert(1, self._is_foreign)
        for test in tests:
            for count, candidate in candidates:
                if test(candidate):
                    return count, candidate.end + candidate.extension
        return 0, 0

    def _is_at_home(self, candidate: _Candidate) -> bool:
        """Whether the number is valid with its country code, or grouped as one of the regions groups them."""
        if candidate.international:
            number = _parsed(candidate.international)
            return number is not None and phonenumbers.is_valid_number(number)
        if not candidate.grouped or candidate.attached:
            return False
        if {"US", "CA"} & {*self.regions} and _NANP.fullmatch(candidate.written):
            return True
        return any(_is_grouped_as_in(region, candidate.written) for region in self.regions)

    def _is_foreign(self, candidate: _Candidate) -> bool:
        """Whether another country writes numbers so: with 0 or an area code in brackets at its beginning."""
        leading = candidate.written.startswith(("0", "(")) and not candidate.digits.startswith("00")
        if not leading or not candidate.grouped or candidate.attached or len(candidate.digits) <= MIN_DIGITS:
            return False
        others = (region for region in WIDE_REGIONS if region not in self.regions)
        return not said_to_be_other(candidate.page, candidate.start, candidate.end) and any(
            _is_grouped_as_in(region, candidate.written) for region in others
        )

    def _is_likely(self, candidate: _Candidate) -> bool:
        """Whether the number has a possible length and country code, or words call it a phone number."""
        if "+" in candidate.written:
            number = _parsed(candidate.written)
            long = candidate.grouped or len(candidate.digits) >= WHOLE_DIGITS
            return long and number is not None and phonenumbers.is_possible_number(number)
        if said_to_be_phone(candidate.page, candidate.start, candidate.end):
            return True
        return not candidate.attached and self._is_mobile(candidate)

    def _is_mobile(self, candidate: _Candidate) -> bool:
        """Whether it is a mobile number of one of the regions in one block, with the 0 that calls need."""
        if candidate.grouped or not candidate.digits.startswith("0"):
            return False
        numbers = (_parsed(candidate.digits, region) for region in self.regions)
        return any(
            number is not None and phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.MOBILE
            for number in numbers
        ) and not said_to_be_other(candidate.page, candidate.start, candidate.end)


def _candidate(page: Page, start: int, end: int) -> _Candidate | None:
    """Return the candidate, unless its length or its surroundings rule out a phone number."""
    written = page.ascii(start, end)
    candidate = _Candidate(page, start, end, written, "".join(filter(str.isdigit, written)))
    code = 2 if candidate.digits.startswith("00") else 0
    if not MIN_DIGITS <= len(candidate.digits) <= MAX_DIGITS + code or candidate.glued:
        return None
    return None if any(map(_is_date_or_decimal, (written, *written.split()))) else candidate


def _is_date_or_decimal(text: str) -> bool:
    bare = text.strip("()+ ")
    return bool(_DATE.fullmatch(bare) or _DECIMAL.fullmatch(bare))


def _most_groups(page: Page, groups: Sequence[_Span]) -> int:
    """How many groups one number can have: behind a whole number with its 0, another 0 begins the next."""
    begin = page.ascii(groups[0][0], groups[0][0] + 2)
    national = begin.startswith("0") and begin != "00"
    digits = 0
    for count, (start, end) in enumerate(groups[:MAX_GROUPS]):
        if national and digits >= WHOLE_DIGITS and page.ascii(start - 1, start + 1) == " 0":
            return count
        digits += end - start
    return min(len(groups), MAX_GROUPS)


def _parsed(written: str, region: str | None = None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(written, region)
    except NumberParseException:
        return None


def _is_grouped_as_in(region: str, written: str) -> bool:
    """Whether it is a valid number of the region, and its digits stand in groups that are in use there."""
    matcher = PhoneNumberMatcher(written, region, leniency=Leniency.STRICT_GROUPING, max_tries=MAX_TRIES)
    match = next(iter(matcher), None)
    return match is not None and match.start <= 1 and match.end == len(written)


def _moved(span: _Span, by: int) -> _Span:
    return span[0] + by, span[1] + by


def _with_bracket(page: Page, start: int) -> int:
    """Where a number begins whose first digit is at `start`: at the bracket before it, if there is one."""
    return start - (page.ascii(start - 1, start) == "(")

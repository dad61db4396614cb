"""E-mail and IP addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv6Address, ip_network

from tunepoint.data.personal.budget import TimeBudget
from tunepoint.data.personal.page import Finding, Page, compiled

# `%40` is an at sign in an address of the web. The last label has a letter first: `tool@1.2.3` is a version.
_EMAIL = compiled(
    rb"(?:[\w.+'%\xe9-]+|\xa6+)(?:@|%40)(?:(?:[\w\xe9-]+|\xa6+)\.)+(?:[A-Za-z\xe9][\w\xe9-]+|\xa6\xa6+)"
)
_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_IPV4 = compiled(rb"(?:" + _OCTET + rb"\.){3}" + _OCTET)
_IPV6 = compiled(rb"[0-9A-Fa-f:.]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*")
MAX_IPV6 = 45
"""Characters of the longest IPv6 address, with an IPv4 address at its end."""
ASSIGNED = tuple(
    map(ip_network, ("2000::/3", "fc00::/7", "fe80::/10", "ff00::/8", "64:ff9b::/96", "::ffff:0:0/96"))
)
"""Blocks of IPv6 in use; in others, `1::2` is a slice and `be::ad` a name in a program."""
_SINGLE_COLON = re.compile(r"^:(?!:)|(?<!:):$")
"""Punctuation of the sentence, as in `ip:2001:db8::1`; two colons belong to the address."""
_VERSION = re.compile(r"(?:\bv|version|release|build|firmware|ver\.?|chapter|section|§)[\s:=\"']*$", re.I)
_VERSION_ROOM = 16


def find_emails(page: Page) -> Iterator[Finding]:
    """Find e-mail addresses, with letters of any script."""
    if b"@" in page.folded or b"%40" in page.folded:
        for match in _EMAIL.finditer(page.folded):
            yield Finding(match.start(), match.end(), "email")


def find_ips(page: Page, budget: TimeBudget) -> Iterator[Finding]:
    """Find addresses of both versions of the Internet Protocol."""
    if page.folded.count(b":") > 1:
        sixes = list(_find_ipv6(page, budget))
        yield from sixes
        page.blank(sixes)
    for match in _IPV4.finditer(page.folded):
        if budget.spent:
            return
        if not _touched(page, *match.span()) and not _is_version(page, match.start()):
            yield Finding(match.start(), match.end(), "ip")


def _touched(page: Page, start: int, end: int) -> bool:
    """Whether the match is a part of something longer."""
    before, after = page.ascii(start - 1, start), page.ascii(end, end + 2)
    longer = after[:1].isalnum() or after[:1] == "_" or (after[:1] == "." and after[1:].isdigit())
    return longer or before.isalnum() or (before in ("_", ".") and before != "")


def _is_version(page: Page, start: int) -> bool:
    return bool(_VERSION.search(page.text[max(0, start - _VERSION_ROOM) : start]))


def _find_ipv6(page: Page, budget: TimeBudget) -> Iterator[Finding]:
    for match in _IPV6.finditer(page.folded):
        if budget.spent:
            return
        if match.end() - match.start() > MAX_IPV6 + 2:
            continue
        address = _SINGLE_COLON.sub("", match.group().decode().rstrip("."))
        start = match.start() + match.group().decode().index(address)
        end = start + len(address)
        if not _touched(page, start, end) and _is_ipv6(address):
            yield Finding(start, end, "ip")


def _is_ipv6(text: str) -> bool:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return False
    return any(address in block for block in ASSIGNED)

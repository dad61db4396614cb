"""API keys, tokens and private keys, by the prefixes that their issuers give them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunepoint.data.personal.page import Finding, Page, compiled

PREFIXES = {
    "sk-": 16,
    "pk-": 16,
    "rk-": 16,
    "sk_": 16,
    "pk_": 16,
    "rk_": 16,
    "tp-": 20,
    "csk-": 20,
    "hf_": 20,
    "api_org_": 20,
    "gsk_": 20,
    "r8_": 20,
    "fw_": 20,
    "xai-": 20,
    "pplx-": 20,
    "nvapi-": 20,
    "tgp_v1_": 20,
    "lsv2_": 20,
    "AIza": 30,
    "ya29.": 20,
    "ghp_": 16,
    "gho_": 16,
    "ghu_": 16,
    "ghs_": 16,
    "ghr_": 16,
    "ghp-": 16,
    "gho-": 16,
    "github_pat_": 20,
    "glpat-": 16,
    "gldt-": 16,
    "glrt-": 16,
    "glcbt-": 16,
    "glptt-": 16,
    "npm_": 20,
    "pypi-": 20,
    "shpat_": 20,
    "whsec_": 20,
    "dop_v1_": 20,
    "dapi": 32,
}
"""Beginnings of keys -> how many letters, digits, `_` and `-` follow at least."""
MIN_RANDOM, LONGEST_WORD = 8, 16
"""Characters of one part of a key: at least one part is mixed and as long as the first, or as the second."""
_WORDS = re.compile(r"[A-Za-z0-9]+")
_BODY = r"[A-Za-z0-9_-]"
_AWS = r"(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{16}"
_SLACK = rf"(?:xox[a-z]|xapp)[-_]{_BODY}{{16,}}"
# Three parts when signed, five when encrypted; the first is always a JSON object, which starts with `{"`.
_JWT = rf"eyJ{_BODY}{{8,}}(?:\.{_BODY}*){{2,4}}"
_SENDGRID = rf"SG\.{_BODY}{{16,}}\.{_BODY}{{16,}}"
_BEARER = r"(?i:bearer) +[A-Za-z0-9._~+/-]{20,}=*"
_PEM = r"PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE = rf"-----BEGIN [A-Z ]*{_PEM}(?:[^-]|-[^-])*(?:-----END [A-Z ]*{_PEM})?"


def _pattern() -> bytes:
    prefixed = (f"{re.escape(prefix)}{_BODY}{{{least},}}" for prefix, least in PREFIXES.items())
    kinds = "|".join((*prefixed, _AWS, _SLACK, _JWT, _SENDGRID, _BEARER, _PRIVATE))
    # A letter or a digit before it means that the prefix is the end of a longer word, as in `task-`.
    return rf"(?:^|[^A-Za-z0-9])({kinds})".encode()


_KEY = compiled(_pattern())


def find_keys(page: Page) -> Iterator[Finding]:
    """Find keys; a slug such as `sk-learn-in-a-nutshell` is none."""
    for match in _KEY.finditer(page.folded):
        if any(map(_is_random, _WORDS.findall(match.group(1).decode("latin-1")))):
            yield Finding(match.start(1), match.end(1), "secret")


def _is_random(word: str) -> bool:
    """Whether a part of a key is too long, or too mixed, to be a word of a language."""
    return len(word) >= MIN_RANDOM and (len(word) >= LONGEST_WORD or not (word.isalpha() and word.islower()))

"""The last line against secrets in logs: what looks like a credential is blanked before a line is written.

No caller may hand a token to a log in the first place; this catches the ones that come inside something else, such as a
path or an exception's text. An opaque token that nothing around it betrays cannot be told from other text.
"""

from __future__ import annotations

import re

REDACTED = "[redacted]"

# A JOSE compact serialisation (also JWE, also cut short): the base64url of `{` and `"` or white space, and so on, then
# at least one more segment.
_JOSE = re.compile(r"e(?:y[JA]|w[0ok])[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)+")

_SECRETS = (
    "access_token|refresh_token|id_token|id_token_hint|token|client_secret|client_assertion|assertion|password|passwd|"
    "secret|code_verifier"
)
_HEADERS = "authorization|proxy-authorization|cookie|set-cookie"

_RULES = (
    (_JOSE, REDACTED),
    # Bearer abc, Basic%20abc, DPoP+abc; not the words of a sentence or a challenge
    (
        re.compile(
            r"\b(bearer|basic|dpop)(\s+|%20|\+)(?!(?:tokens?|credentials?|realm)\b)[A-Za-z0-9._~+/=-]+", re.IGNORECASE
        ),
        rf"\1\2{REDACTED}",
    ),
    # password=abc, in forms, queries and command lines
    (re.compile(rf"\b({_SECRETS})=[^\s\"'&,;\\]+", re.IGNORECASE), rf"\1={REDACTED}"),
    # 'token': 'abc', b"cookie": b"abc", (b'authorization', b'abc'), also with escaped quotes
    (
        re.compile(rf"([\"'](?:{_SECRETS}|{_HEADERS})\\?[\"']\s*[:,]\s*b?\\?[\"'])[^\"'\\]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    # Cookie: abc, up to the end of the line
    (re.compile(rf"\b({_HEADERS}):[ \t]*[^\r\n\"']+", re.IGNORECASE), rf"\1: {REDACTED}"),
    # https://user:abc@host
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s@\"']*:[^/\s@\"']*@", re.IGNORECASE), rf"\1{REDACTED}@"),
)
_CREDENTIAL = re.compile(r"\s*(?:bearer|basic|dpop)(?:\s|%20|\+)", re.IGNORECASE)
_SECRET_NAME = re.compile(rf"(?:.*_)?(?:{_SECRETS}|{_HEADERS})", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Tell whether what has this name is a credential."""
    return _SECRET_NAME.fullmatch(name) is not None


def is_secret_text(text: str) -> bool:
    """Tell whether a text holds a JWT, or is a credential after its scheme; a fraction of a microsecond where not."""
    if ("ey" in text or "ew" in text) and _JOSE.search(text) is not None:
        return True
    return _CREDENTIAL.match(text) is not None


def redact(text: str) -> str:
    """Return `text` without JWTs, credentials after their scheme, secret parameters and headers, passwords in URLs."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def redact_field(name: str, value: object) -> object:
    """Return a log field without secrets: blank by its name, else redacted at any depth; unknown types as text."""
    if _SECRET_NAME.fullmatch(name):
        return REDACTED
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {redact(str(key)): redact_field(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact_field("", inner) for inner in value]
    return redact(str(value))


def redact_path(path: str) -> str:
    """Return a path without the JWTs in it; a fraction of a microsecond where there is none."""
    if "ey" not in path and "ew" not in path:
        return path
    return _JOSE.sub(REDACTED, path)

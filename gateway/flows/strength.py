"""What a login is worth: authentication methods (RFC 8176) and the classes (`acr`) that they add up to.

A class is met by every stronger one: who logged in with a passkey need not type a code for what asks for two factors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

ONE_FACTOR: Final = "1fa"
TWO_FACTORS: Final = "2fa"
PHISHING_RESISTANT: Final = "phr"  # "Phishing-Resistant", OpenID Connect EAP ACR Values 1.0 §2
CLASSES: Final = (ONE_FACTOR, TWO_FACTORS, PHISHING_RESISTANT)  # the weakest first

KNOWN: Final = "pwd"
CODE: Final = "otp"  # of an app, or a recovery code: each counts once
SEVERAL: Final = "mfa"
FEDERATED: Final = "fed"  # an identity provider vouches
_FIRST: Final = frozenset({KNOWN, FEDERATED})  # what a key or a code is the second factor of
_BOUND_TO_SITE: Final = frozenset({"hwk", "swk", "pop"})  # keys that sign for this site alone
_POSSESSED: Final = frozenset({CODE, *_BOUND_TO_SITE})


def acr_of(methods: Iterable[str]) -> str:
    """Give the class of what was proved."""
    found = frozenset(methods)
    # "user" says that somebody was there, and not who (RFC 8176 §2): a stolen key would do.
    if found & _BOUND_TO_SITE and (SEVERAL in found or found & _FIRST):
        return PHISHING_RESISTANT
    if SEVERAL in found or (found & _FIRST and found & _POSSESSED):
        return TWO_FACTORS
    return ONE_FACTOR


def with_class(methods: Iterable[str]) -> tuple[str, ...]:
    """Give the methods, each once, with `mfa` where they are several factors (RFC 8176 §2)."""
    found = tuple(dict.fromkeys(methods))
    if acr_of(found) != ONE_FACTOR and SEVERAL not in found:
        return (*found, SEVERAL)
    return found


def meets(acr: str, wanted: Iterable[str]) -> bool:
    """Tell whether a login of class `acr` is as strong as one of `wanted`; nothing wanted is met by all."""
    asked = tuple(wanted)
    if not asked or acr in asked:
        return True
    if acr not in CLASSES:
        return False
    rank = CLASSES.index(acr)
    return any(each in CLASSES and CLASSES.index(each) <= rank for each in asked)

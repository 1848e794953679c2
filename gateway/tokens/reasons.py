"""Why a token is refused: what each reason means, and the error that carries it to a library's caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway._native.token import REASONS
from gateway.errors import TokenRejected

# ORDER REASON: one sentence for each name that `_native/token.pyx` gives, in its order.
MEANINGS: Final[Mapping[str, str]] = {
    "ok": "the token is valid",
    "kid_unknown": "no key of the issuer fits the token's `kid` and algorithm",
    "opaque": "the token is no JWT; only its issuer can say what it means",
    "keys_unavailable": "the issuer's keys were never loaded, or are too old to be used",
    "malformed": "the token is no compact JWS of canonical base64url and valid JSON objects without duplicate names",
    "too_large": "the token is longer than the limit",
    "header_invalid": "the header has members of the wrong type, or members that are never accepted",
    "algorithm": "the token's algorithm is none that the issuer or the key may use",
    "type": "the token's `typ` is of another kind",
    "issuer_unknown": "the token's `iss` is no configured issuer",
    "claim_invalid": "a claim has the wrong type, is out of range, or cannot be carried in a header",
    "expired": "the token has expired",
    "issued_in_future": "the token's `iat` lies in the future",
    "not_yet_valid": "the token's `nbf` lies in the future",
    "audience": "none of the accepted audiences is in the token's `aud`",
    "claim_missing": "the token lacks `exp`, `iss` or another required claim",
    "sender_constrained": "the token is bound to a key of its sender, and no proof of it was given",
    "signature": "the signature is not valid",
    "revoked": "the token, its subject or its session was revoked",
}
assert tuple(MEANINGS) == REASONS


class TokenError(TokenRejected):
    """A token that is refused. `code` is one of the names in MEANINGS, stable for programs to act on.

    The code says what is wrong with the token as it stands, not who made it: cheap checks come before the signature,
    so an `expired` token may be a forged one as well. Only `revoked` is said of tokens whose signature was verified.
    """

    # Of the instance here: one class for all reasons, which share their treatment.
    code: str  # type: ignore[misc]
    status: int  # type: ignore[misc]

    def __init__(self, code: str) -> None:
        self.code = code
        self.status = TokenRejected.status
        super().__init__(MEANINGS[code])
        if code == "keys_unavailable":  # not the token's fault: come again
            self.status = 503
            self.retry_after_s = 5.0

    def __reduce__(self) -> tuple[type[TokenError], tuple[str]]:
        return type(self), (self.code,)

"""What a request to a route is made into: the same as by hand, or the same refusal.

An input is two bytes that choose templates, then path segment, query and values of a header (by lines), with `|`
between. For what the oracle makes of it a policy is written that allows exactly that; the door must agree.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from gateway._native.entities import EntityStore
from gateway._native.front import REASONS, DenyAnswer, Engine, FrontDoor, RouteSettings
from gateway._native.route_policy import ContextField, DeciderCell, Piece, Principals, RoutePolicy
from gateway._native.routes import Route, RouteSnapshot
from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway._native.uid import EntityUid
from gateway._native.verify import KeyHandle
from gateway.policy.incremental.partial import tree_of
from gateway.policy.language import tree
from gateway.policy.language.printer import print_expression
from tests.oracle import extensions
from tests.oracle import routes as oracle
from tests.policy.machine import decider_of

WORDS = (
    b"|", b"a=", b"q=", b"t=", b"n=", b"b=", b"i=", b"&", b"%41", b"%c3%a9", b"%ff", b"%zz", b"%", b"+", b"true",
    b"false", b"-9223372036854775807", b"9223372036854775807", b"9223372036854775808", b"-0", b"007", b"10.0.0.0/8",
    b"::1", b"\n", b"%00", b"=", b"q=1&q=2", b"read",
)  # fmt: skip
LENGTH_MAX = 9000
TEXT_MAX = 8192
SEGMENT_MAX = 1000
NOW_S = 1_800_000_000
SECRET = b"k" * 64
ISSUER = b"https://idp.example.com"
HOST, SCHEME, METHOD = b"app.test", b"http", "GET"

Part = tuple[str, Any]  # kind of a piece; its text, name or number
RESOURCES: tuple[list[Part], ...] = (
    [("parameter", 0)],
    [("header", b"x-a"), ("text", b" "), ("query", b"q")],
    [("method", None), ("text", b" "), ("path", None), ("host", None), ("scheme", None)],
    [("claim", 0), ("text", b"/"), ("query", b"q")],
)
ACTIONS: tuple[list[Part], ...] = (
    [("text", b"read")],
    [("method", None)],
    [("query", b"a")],
    [("text", b"x"), ("claim", 1)],
)
FIELDS: tuple[tuple[str, str, list[Part]], ...] = (
    ("text", "text", [("query", b"t")]),
    ("number", "long", [("query", b"n")]),
    ("bool", "bool", [("query", b"b")]),
    ("address", "ip", [("query", b"i")]),
    ("mixed", "text", [("header", b"x-a"), ("text", b"-"), ("parameter", 0)]),
    ("claimed", "claim", []),
    ("refused", "text", [("claim", 2)]),
)
TEXTS = (b"sales", None, False)  # of claims: one that is text, one that is absent, one that is no text
CLAIMED = ("a", 1)


@dataclass(frozen=True, slots=True)
class Claims:
    """What the one token's claims come to."""

    attributes: dict[str, Any] = field(default_factory=dict)
    parents: tuple[EntityUid, ...] = ()
    texts: tuple[bytes | bool | None, ...] = TEXTS
    values: dict[str, Any] = field(default_factory=lambda: {"claim 0": CLAIMED})
    invalid_values: frozenset[str] = frozenset()
    refused: bool = False


class Refused(Exception):
    """Nothing is asked; the argument is the door's reason."""


def _token() -> bytes:
    claims = {"iss": ISSUER.decode(), "sub": "alice", "aud": "api", "exp": NOW_S + 300, "iat": NOW_S}
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "one", "typ": "JWT"}, claims)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return signed + b"." + base64.urlsafe_b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).rstrip(b"=")


def _validator() -> TokenValidator:
    made = TokenValidator(entries=16, structures=4)
    rules = IssuerRules(ISSUER, audiences=[b"api"], algorithms=("HS256",))
    made.publish(KeySnapshot([rules], [[KeyHandle(b"one", "HS256", secret=SECRET)]], [NOW_S + 3600]))
    return made


def _answer() -> DenyAnswer:
    return DenyAnswer(
        403, nginx_status=403, headers=(), problem_head=b"", problem_tail=b"", page_head=b"", page_tail=b""
    )


def _pieces(parts: Sequence[Part]) -> list[Piece]:
    made = []
    for kind, value in parts:
        if isinstance(value, bytes):
            made.append(Piece(kind, value))  # type: ignore[arg-type]
        else:
            made.append(Piece(kind, index=value or 0))  # type: ignore[arg-type]
    return made


async def _nothing(*_: Any) -> None:
    raise AssertionError("a judged request was answered")


STORE = EntityStore()
CELL = DeciderCell()
TOKEN = _token()
VALIDATOR = _validator()
_doors: dict[int, FrontDoor] = {}  # by the choice of templates: 2,048 at most


def door_of(choice: int) -> FrontDoor:
    """Give the door whose one route has the chosen templates."""
    if choice not in _doors:
        policy = RoutePolicy(
            Principals("User", lambda _: Claims()),
            "Action",
            _pieces(ACTIONS[choice & 3]),
            "Doc",
            _pieces(RESOURCES[choice >> 2 & 3]),
            [
                ContextField(name.encode(), kind, _pieces(parts), claim="claim 0" if kind == "claim" else "")  # type: ignore[arg-type]
                for name, kind, parts in chosen_fields(choice)
            ],
        )
        engine = Engine(
            VALIDATOR, RouteSnapshot([Route("/r/{id}", index=0, extra=RouteSettings(policy=policy))]), policies=CELL
        )
        engine.set_now(NOW_S)
        answers = [_answer() for _ in REASONS]
        _doors[choice] = FrontDoor(
            engine,
            app=_nothing,
            ask=_nothing,
            websocket=_nothing,
            fault=lambda *_: None,
            is_trusted=lambda _: False,
            answers=answers,
            forward_answers=answers,
        )
    return _doors[choice]


def chosen_fields(choice: int) -> list[tuple[str, str, list[Part]]]:
    return [each for bit, each in enumerate(FIELDS) if choice >> (4 + bit) & 1]


# --- by hand


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to the route, in pieces."""

    path: bytes  # canonical
    parameter: bytes
    query: bytes
    headers: list[bytes]

    def fill(self, parts: Sequence[Part]) -> bytes | None:
        """Give what the pieces come to, or None. Raises Refused for a claim that is no text."""
        made = b""
        for kind, value in parts:
            part = self._part(kind, value)
            if part is None:
                return None
            made += part
            if len(made) > TEXT_MAX:
                return None
        return made

    def _part(self, kind: str, value: Any) -> bytes | None:
        match kind:
            case "text":
                return bytes(value)
            case "parameter":
                return unquote_to_bytes(self.parameter)
            case "method":
                return METHOD.encode()
            case "path":
                return self.path
            case "host":
                return HOST
            case "scheme":
                return SCHEME
            case "header":
                return self.headers[0] if len(self.headers) == 1 else None
            case "claim":
                claim = TEXTS[value]
                if claim is False:
                    raise Refused("policy_claim_invalid")
                return claim if isinstance(claim, bytes) else None
        found = [part.partition(b"=")[2] for part in self.query.split(b"&") if part.partition(b"=")[0] == value]
        return _unescaped(found[0]) if len(found) == 1 else None


def _unescaped(raw: bytes) -> bytes | None:
    pieces = raw.replace(b"+", b" ").split(b"%")
    made = pieces[0]
    for piece in pieces[1:]:
        digits = piece[:2]
        if len(digits) < 2 or any(digit not in b"0123456789abcdefABCDEF" for digit in digits):
            return None
        made += bytes([int(digits, 16)]) + piece[2:]
    return made


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refused("policy_incomplete") from None


def _value(kind: str, raw: bytes) -> Any:
    text = _text(raw) if kind == "text" else raw.decode("latin-1")
    if kind == "text":
        return text
    if kind == "bool" and text in ("true", "false"):
        return text == "true"
    if kind == "long":
        digits = text.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(text) <= 20 and int(digits) < 2**63:
            return int(text)
    if kind == "ip":
        try:
            return extensions.ip(text)
        except ValueError:
            pass
    raise Refused("policy_incomplete")


def by_hand(choice: int, asked: Asked) -> tuple[EntityUid, EntityUid, dict[str, Any]]:
    """Give action, resource and context. Raises Refused."""
    uids = []
    for kind, parts in (("Action", ACTIONS[choice & 3]), ("Doc", RESOURCES[choice >> 2 & 3])):
        raw = asked.fill(parts)
        if raw is None:
            raise Refused("policy_incomplete")
        uids.append(EntityUid(kind, _text(raw)))
    context: dict[str, Any] = {}
    for name, kind, parts in chosen_fields(choice):
        if kind == "claim":
            context[name] = CLAIMED
            continue
        raw = asked.fill(parts)
        if raw is not None:
            context[name] = _value(kind, raw)
    return uids[0], uids[1], context


def policy_for(action: EntityUid, resource: EntityUid, context: dict[str, Any]) -> str:
    """Write the policy that allows this request and no other."""
    wanted = print_expression(tree.Binary("==", tree.Variable("context"), tree_of(context)))
    return f'permit (principal == User::"alice", action == {action}, resource == {resource}) when {{ {wanted} }};'


# --- the target


def seeds() -> Iterable[bytes]:
    for rest in (
        b"1|q=b+c%26&t=x&n=-7&b=true&i=10.0.0.0/8|A",
        b"%C3%A4%20b|q=1&q=2|A\nB",
        b"a|a=read&q=%ff&n=007&b=false&i=::1|",
        b"a|t=%4&n=9223372036854775808&b=1&i=1.2.3|\xff",
        b"a|q|" + b"x" * 100,
    ):
        for choice in (b"\x00\x00", b"\x07\xf5", b"\x03\xfe", b"\x02\x48", b"\x01\xb9"):
            yield choice + rest


def target(data: bytes) -> object:
    choice = int.from_bytes(data[:2].ljust(2, b"\0"), "big") & 0x7FF
    segment, _, rest = data[2:].partition(b"|")
    query, _, values = rest.partition(b"|")
    segment = segment[:SEGMENT_MAX].replace(b"?", b"_")  # a server ends the path there
    headers = values.split(b"\n")[:3] if values else []
    raw = b"/r/" + segment
    scope = {
        "type": "http",
        "method": METHOD,
        "scheme": SCHEME.decode(),
        "path": raw.decode("latin-1"),
        "raw_path": raw,
        "query_string": query,
        "headers": [
            (b"host", HOST),
            (b"authorization", b"Bearer " + TOKEN),
            *((b"x-a", each) for each in headers),
        ],
        "client": ("192.0.2.1", 1234),
        "server": ("127.0.0.1", 8080),
        "http_version": "1.1",
    }
    canonical = oracle.canonical_path(raw)
    found = None
    if isinstance(canonical, bytes):
        found = oracle.find((oracle.Pattern("/r/{id}", "", ()),), HOST.decode(), canonical.decode(), METHOD)
    asked = None
    wanted = "ok"
    if found is None or isinstance(found, str) or not isinstance(canonical, bytes):
        CELL.decider = decider_of(STORE, "")
        wanted = ""
    else:
        asked = Asked(canonical, found[1]["id"].encode(), query, headers)
        try:
            made = by_hand(choice, asked)
        except Refused as refusal:
            wanted = str(refusal)
            CELL.decider = decider_of(STORE, "permit (principal, action, resource);")
        else:
            CELL.decider = decider_of(STORE, policy_for(*made))
    reason = door_of(choice).judge_scope(scope).reason
    if wanted:
        assert reason == wanted, (reason, wanted, asked)
    else:
        assert reason not in {"ok", "policy_denied"}, (reason, canonical, found)
    return reason, choice & 15

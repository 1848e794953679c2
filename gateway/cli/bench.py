"""`portcullis bench`: what validating a token costs on this machine; in a checkout, also whole servers and peers."""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, fail, say, table

if TYPE_CHECKING:
    from gateway._native.token import TokenValidator
    from gateway._native.verify import KeyHandle

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "HS256")
ISSUER = "https://bench.invalid"
AUDIENCE = "bench"
ROUNDS, QUICK_ROUNDS = 15, 3
TOKENS, QUICK_TOKENS = 400, 50
KNOWN_CALLS = 20_000  # a round; a hit takes a fraction of a microsecond


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians in microseconds a token."""

    algorithm: str
    new_us: float  # everything included: parsing, claims, signature, and the place in the cache
    known_us: float
    refused_us: float  # expired: refused before the signature is looked at
    signature_us: float  # the signature alone


@click.group(invoke_without_command=True)
@click.pass_context
def bench(ctx: click.Context) -> None:
    """Measure it on this machine.

    Without a verb: micro.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(micro)


@bench.command()
@click.option("--quick", is_flag=True, help="Short rounds, for a first look.")
@as_json_option
def micro(quick: bool = False, as_json: bool = False) -> None:
    """Time the validation of new, known and refused tokens, and two threads against one."""
    from gateway._native import verify
    from gateway.errors import GatewayError

    rounds, tokens = (QUICK_ROUNDS, QUICK_TOKENS) if quick else (ROUNDS, TOKENS)
    try:
        costs = [_cost(algorithm, rounds, tokens, _shown(as_json)) for algorithm in ALGORITHMS]
        speed_up = _two_threads(rounds, tokens)
    except (GatewayError, AssertionError) as error:
        fail(f"not measured: {error}", as_json)
    _shown(as_json)("")
    document = {
        "ok": True,
        "backend": verify.BACKEND,
        "libcrypto": verify.LIBCRYPTO_VERSION,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "microseconds": [asdict(cost) for cost in costs],
        "two_threads": round(speed_up, 3),
    }
    say(document, as_json, lambda: _speak(costs, speed_up, f"{verify.BACKEND} {verify.LIBCRYPTO_VERSION}".strip()))


def _speak(costs: Sequence[Cost], speed_up: float, backend: str) -> None:
    click.echo(f"CPU time of one thread, medians; signatures by {backend}\n")
    rows = [
        [
            cost.algorithm,
            f"{cost.new_us:.2f}",
            f"{cost.signature_us:.2f}",
            f"{cost.known_us:.3f}",
            f"{cost.refused_us:.2f}",
            f"{1e6 / cost.new_us:,.0f}",
        ]
        for cost in costs
    ]
    table(["µs a token", "new", "signature alone", "known", "expired", "new ones a second and core"], rows)
    click.echo(f"\ntwo threads with batches: {speed_up:.2f} × one")


def _shown(as_json: bool) -> Callable[[str], None]:
    """Give what shows progress: one changing line on a terminal, nothing elsewhere."""

    def show(text: str) -> None:
        if not as_json and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()

    return show


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a validator as the doors use it, and tokens of some 800 bytes that it accepts."""

    validator: TokenValidator
    tokens: list[bytes]
    expired: list[bytes]
    handle: KeyHandle


def _make(algorithm: str, count: int) -> Subject:
    from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
    from gateway.tokens.keys import load_jwk
    from gateway.tokens.signing import mint, new_key

    key = new_key(algorithm, kid=f"bench-{algorithm.lower()}")
    handles = load_jwk(key.private_jwk() if key.is_symmetric else key.public_jwk(), (algorithm,))
    rules = IssuerRules(ISSUER.encode(), audiences=(AUDIENCE.encode(),), algorithms=(algorithm,))
    validator = TokenValidator()
    validator.publish(KeySnapshot((rules,), (handles,), (1 << 40,)))
    now_s = int(time.time())
    shared = {"iss": ISSUER, "aud": AUDIENCE, "scope": "orders:read orders:write profile", "azp": "web-shop"}
    shared["note"] = "x" * (100 if algorithm in {"RS256", "PS256"} else 290)  # Signatures differ in length.

    def minted(number: int, issued_at_s: int) -> bytes:
        own = {"sub": f"subject-{number:08}", "jti": f"{number:032x}", "iat": issued_at_s}
        return mint({**shared, **own, "exp": issued_at_s + 3600}, key).encode()

    return Subject(
        validator,
        [minted(number, now_s) for number in range(count)],
        [minted(number, now_s - 86_400) for number in range(20)],
        handles[0],
    )


def _per_call_ns(call: Callable[[bytes], object], arguments: Sequence[bytes]) -> float:
    started_ns = time.thread_time_ns()
    for argument in arguments:
        call(argument)
    return (time.thread_time_ns() - started_ns) / len(arguments)


def _cost(algorithm: str, rounds: int, count: int, show: Callable[[str], None]) -> Cost:
    from base64 import urlsafe_b64decode

    show(f"{algorithm}: making tokens")
    subject = _make(algorithm, count)
    validator, judge = subject.validator, subject.validator.judge_token
    assert all(judge(token)[1] == "ok" for token in subject.tokens), "a good token was refused"
    assert all(judge(token)[1] == "expired" for token in subject.expired), "an expired token was not refused as such"
    signed, _, encoded = subject.tokens[0].rpartition(b".")
    signature = urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    assert subject.handle.verify(signed, signature), "a good signature was refused"
    known = subject.tokens[:1] * KNOWN_CALLS
    refused = subject.expired * 100
    figures: dict[str, list[float]] = {"new": [], "known": [], "refused": [], "bare": []}
    for number in range(rounds):
        show(f"{algorithm}: round {number + 1} of {rounds}")
        validator.forget_all()
        figures["new"].append(_per_call_ns(judge, subject.tokens))
        figures["bare"].append(_per_call_ns(lambda each: subject.handle.verify(each, signature), [signed] * count))
        figures["known"].append(_per_call_ns(judge, known))
        figures["refused"].append(_per_call_ns(judge, refused))
    medians = {name: round(statistics.median(values) / 1000, 3) for name, values in figures.items()}
    return Cost(algorithm, medians["new"], medians["known"], medians["refused"], medians["bare"])


def _two_threads(rounds: int, count: int) -> float:
    """Give how many times as much two threads do as one, both with batches."""
    subject = _make("RS256", count)
    batch = subject.tokens * -(-1000 // count)

    def elapsed_s(threads: int) -> float:
        workers = [threading.Thread(target=subject.validator.judge_batch, args=(batch,)) for _ in range(threads)]
        started_s = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - started_s

    assert set(subject.validator.judge_batch(batch)) == {"ok"}, "a good token was refused"
    return statistics.median(2 * elapsed_s(1) / elapsed_s(2) for _ in range(rounds))


# --- what needs the checkout ------------------------------------------------------------------------------------------


def _checkout() -> Path | None:
    """Find the checkout that this package runs from, or None for an installed one."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "bench" / "__main__.py").exists() else None


def _run_in_checkout(what: str, arguments: Sequence[str]) -> None:
    root = _checkout()
    if root is None:
        raise click.UsageError(
            f"`bench {what}` measures whole servers beside their peers, which are part of the source checkout; "
            f"clone it and run `make bench`, or run `portcullis bench micro` here"
        )
    sys.stdout.flush()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
    os.execve(sys.executable, [sys.executable, "-m", "bench", what, *arguments], environment)  # noqa: S606


def _add_checkout_verb(what: str, help_text: str) -> None:
    @bench.command(what, help=help_text, context_settings={"ignore_unknown_options": True, "help_option_names": []})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def run(arguments: tuple[str, ...]) -> None:
        _run_in_checkout(what, arguments)


_add_checkout_verb("journey", "Load whole servers, ours beside its peers (in a checkout).")
_add_checkout_verb("soak", "Minutes at full load with an eye on memory (in a checkout).")
_add_checkout_verb("all", "Libraries, modules and servers beside their peers (in a checkout).")

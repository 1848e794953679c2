from __future__ import annotations

import copy
import ctypes
import gc
import hmac
import os
import pickle
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway._native import verify
from gateway._native.verify import ALGORITHMS, BACKEND, KeyHandle, live_objects, raw_verify_loop
from gateway.tokens.keys import load_jwk
from tests.oracle import verify as oracle
from tests.signers import CURVES, HMAC_NAMES, NAMES, PUBLIC_NAMES, SHA2, der, pss, rsa_key, signer

ROOT = Path(__file__).resolve().parents[2]
TEXT = b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0" * 20
BACKENDS = ("libcrypto", "cryptography") if BACKEND == "libcrypto" else ("cryptography",)
SECONDS_MAX = 60.0

needs_libcrypto = pytest.mark.skipif(BACKEND != "libcrypto", reason=f"no libcrypto: {verify.BACKEND_REASON}")
each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_algorithm = pytest.mark.parametrize("algorithm", NAMES)
each_curve = pytest.mark.parametrize("algorithm", CURVES)


def handle_of(algorithm: str, backend: str) -> KeyHandle:
    (handle,) = load_jwk(signer(algorithm).jwk, [algorithm], backend=backend)
    assert handle.backend == backend
    return handle


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def scalars(algorithm: str, r: int, s: int) -> bytes:
    size = oracle.CURVES[algorithm].size
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


# --- what is valid ----------------------------------------------------------------------------------------------------


@each_backend
@each_algorithm
def test_a_good_signature_verifies_again_and_again_and_only_over_its_own_text(algorithm: str, backend: str) -> None:
    handle, signature = handle_of(algorithm, backend), signer(algorithm).sign(TEXT)
    for _ in range(3):
        assert handle.verify(TEXT, signature) is True
        assert handle.verify(TEXT + b"a", signature) is False
        assert handle.verify(TEXT[:-1], signature) is False
        assert handle.verify(b"", signature) is False
    assert handle.verify(b"", signer(algorithm).sign(b"")) is True


@each_backend
@each_algorithm
def test_no_signature_survives_one_flipped_bit(algorithm: str, backend: str) -> None:
    handle, signature = handle_of(algorithm, backend), signer(algorithm).sign(TEXT)
    bits = 8 * len(signature)
    step = max(1, bits // 256) | 1
    assert not any(handle.verify(TEXT, flipped(signature, bit)) for bit in range(0, bits, step))
    assert handle.verify(TEXT, signature)


@each_backend
@each_algorithm
def test_a_signature_of_any_other_length_is_refused(algorithm: str, backend: str) -> None:
    handle, signature = handle_of(algorithm, backend), signer(algorithm).sign(TEXT)
    shorter = [signature[:length] for length in range(0, len(signature), max(1, len(signature) // 40))]
    longer = [signature + b"\0", b"\0" + signature, signature * 2, signature + bytes(100_000)]
    for wrong in [*shorter, signature[:-1], signature[1:], *longer]:
        assert handle.verify(TEXT, wrong) is False


@each_backend
@pytest.mark.parametrize("algorithm", ["PS256", "PS384", "PS512"])
def test_a_signature_without_its_leading_zero_is_refused(algorithm: str, backend: str) -> None:
    # RFC 8017 §8.1.2, step 1. The salt makes each signature another number: one in 256 begins with a zero octet.
    signed = (signer(algorithm).sign(TEXT) for _ in range(10_000))
    signature = next(candidate for candidate in signed if candidate[0] == 0)
    assert handle_of(algorithm, backend).verify(TEXT, signature) is True
    assert handle_of(algorithm, backend).verify(TEXT, signature[1:]) is False


@given(data=st.data(), text=st.binary(max_size=300))
@settings(max_examples=120)
def test_both_backends_and_the_oracle_agree(data: st.DataObject, text: bytes) -> None:
    algorithm = data.draw(st.sampled_from(NAMES))
    good = signer(algorithm).sign(text)
    signature = data.draw(
        st.one_of(
            st.just(good),
            st.integers(0, 8 * len(good) - 1).map(lambda bit: flipped(good, bit)),
            st.integers(0, len(good)).map(lambda length: good[:length]),
            st.binary(min_size=len(good), max_size=len(good)),
            st.sampled_from([bytes(len(good)), b"\xff" * len(good), good[::-1]]),
        )
    )
    expected = oracle.verify(algorithm, signer(algorithm).key, text, signature)
    assert [handle_of(algorithm, backend).verify(text, signature) for backend in BACKENDS] == [expected] * len(BACKENDS)
    assert expected or signature != good


@each_backend
def test_a_key_of_another_algorithm_never_verifies(backend: str) -> None:
    signatures = {algorithm: signer(algorithm).sign(TEXT) for algorithm in NAMES}
    for algorithm in NAMES:
        handle = handle_of(algorithm, backend)
        assert {name for name, signature in signatures.items() if handle.verify(TEXT, signature)} == {algorithm}


# --- ECDSA (RFC 7518 §3.4) --------------------------------------------------------------------------------------------


@each_backend
@each_curve
def test_ecdsa_scalars_out_of_range_are_refused(algorithm: str, backend: str) -> None:
    handle, curve, good = handle_of(algorithm, backend), oracle.CURVES[algorithm], signer(algorithm).sign(TEXT)
    n, p, size = curve.order, curve.p, curve.size
    r, s = int.from_bytes(good[:size], "big"), int.from_bytes(good[size:], "big")
    everything = 2 ** (8 * size) - 1
    for wrong in (0, n, n + 1, p, everything):
        assert not handle.verify(TEXT, scalars(algorithm, wrong, s))
        assert not handle.verify(TEXT, scalars(algorithm, r, wrong))
        assert not handle.verify(TEXT, scalars(algorithm, wrong, wrong))
    for edge in (1, n - 1):  # in range, and wrong
        assert not handle.verify(TEXT, scalars(algorithm, edge, edge))
    if s + n <= everything:
        assert not handle.verify(TEXT, scalars(algorithm, r, s + n))
    assert handle.verify(TEXT, good)
    # FIPS 186-5 knows no "low s": the mirrored scalar is a signature too, and RFC 7518 does not forbid it.
    assert handle.verify(TEXT, scalars(algorithm, r, n - s))


@each_backend
@each_curve
def test_ecdsa_as_der_is_refused_also_when_it_has_the_right_length(algorithm: str, backend: str) -> None:
    handle, size = handle_of(algorithm, backend), oracle.CURVES[algorithm].size
    good = signer(algorithm).sign(TEXT)
    encoded = encode_dss_signature(int.from_bytes(good[:size], "big"), int.from_bytes(good[size:], "big"))
    assert not handle.verify(TEXT, encoded)
    assert not handle.verify(TEXT, encoded.ljust(2 * size, b"\0")[: 2 * size])


@needs_libcrypto
@each_curve
def test_scalars_of_every_length_become_minimal_der(algorithm: str) -> None:
    """Find signatures whose scalars begin with a zero octet or a high bit: each takes another way through DER."""
    handle, size = handle_of(algorithm, "libcrypto"), oracle.CURVES[algorithm].size
    ways = {(False, False), (True, False), (True, True)}  # (begins with a zero octet, then with a high bit)
    if algorithm != "ES512":  # whose first octet is 0 or 1
        ways.add((False, True))
    for number in range(8192):
        text = b"%d" % number
        signature = signer(algorithm).sign(text)
        for half in (signature[:size], signature[size:]):
            way = (half[0] == 0, bool(half.lstrip(b"\0")[0] & 0x80))
            if way in ways:
                assert handle.verify(text, signature)
                ways.remove(way)
        if not ways:
            break
    assert not ways


# --- Ed25519 (RFC 8032) -----------------------------------------------------------------------------------------------


@each_backend
def test_an_ed25519_scalar_beyond_the_order_is_refused(backend: str) -> None:
    handle, good = handle_of("EdDSA", backend), signer("EdDSA").sign(TEXT)
    s = int.from_bytes(good[32:], "little")
    for wrong in (s + oracle.ED_ORDER, oracle.ED_ORDER, 2**255 - 1, 2**256 - 1):
        assert not handle.verify(TEXT, good[:32] + wrong.to_bytes(32, "little"))
    assert handle.verify(TEXT, good)


@each_backend
def test_ed25519_is_known_by_both_of_its_names(backend: str) -> None:
    jwk = {**signer("EdDSA").jwk, "alg": "Ed25519"}
    (handle,) = load_jwk(jwk, ["Ed25519"], backend=backend)
    assert handle.algorithm == "EdDSA"
    assert handle.verify(TEXT, signer("EdDSA").sign(TEXT))


# --- RSASSA-PSS (RFC 7518 §3.5) ---------------------------------------------------------------------------------------


@each_backend
@pytest.mark.parametrize("algorithm", ["PS256", "PS384", "PS512"])
def test_a_pss_salt_of_another_length_is_refused(algorithm: str, backend: str) -> None:
    handle, digest = handle_of(algorithm, backend), SHA2[algorithm[2:]]
    longest = 256 - digest.digest_size - 2
    for salt_bytes in (0, 20, digest.digest_size - 1, digest.digest_size + 1, longest):
        assert not handle.verify(TEXT, rsa_key().sign(TEXT, pss(algorithm, salt_bytes), digest))
    assert handle.verify(TEXT, rsa_key().sign(TEXT, pss(algorithm, digest.digest_size), digest))


@each_backend
@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_an_rsa_signature_that_is_not_below_the_modulus_is_refused(algorithm: str, backend: str) -> None:
    handle, good = handle_of(algorithm, backend), signer(algorithm).sign(TEXT)
    modulus = rsa_key().public_key().public_numbers().n
    number = int.from_bytes(good, "big")
    for wrong in (0, 1, modulus - 1, modulus, 2**2048 - 1):
        assert not handle.verify(TEXT, wrong.to_bytes(256, "big"))
    if number + modulus < 2**2048:
        assert not handle.verify(TEXT, (number + modulus).to_bytes(256, "big"))


# --- threads, contexts, lifetimes -------------------------------------------------------------------------------------


@needs_libcrypto
@each_algorithm
@pytest.mark.parametrize("pool", [1, 2, 16])
def test_threads_that_hammer_one_key_all_get_right_answers(algorithm: str, pool: int) -> None:
    made = signer(algorithm)
    key = {"secret": made.key} if algorithm in HMAC_NAMES else {"spki": made.spki}
    holder = [KeyHandle(b"", algorithm, pool=pool, **key)]
    texts = [b"%d" % number * 50 for number in range(8)]
    signatures = [made.sign(text) for text in texts]
    answers: list[bool] = []
    start = threading.Barrier(8)

    def hammer(mine: int) -> None:
        start.wait(SECONDS_MAX)
        for turn in range(40):
            other = (mine + turn) % 8
            answers.append(holder[0].verify(texts[mine], signatures[other]) is (mine == other))

    threads = [threading.Thread(target=hammer, args=(mine,)) for mine in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS_MAX)
    assert answers == [True] * 320
    gc.collect()
    before = live_objects()["slots"]
    holder.clear()
    # Eight threads had a context each when they met; no more than the pool holds were kept.
    assert 1 <= before - live_objects()["slots"] <= pool


@needs_libcrypto
@each_algorithm
def test_a_handle_frees_all_that_it_made(algorithm: str) -> None:
    gc.collect()
    before = live_objects()
    handles = [handle_of(algorithm, "libcrypto") for _ in range(50)]
    signature = signer(algorithm).sign(TEXT)
    assert all(handle.verify(TEXT, signature) for handle in handles)
    assert live_objects() == {"keys": before["keys"] + 50, "slots": before["slots"] + 50}
    handles.clear()
    gc.collect()
    assert live_objects() == before


@needs_libcrypto
def test_a_refused_key_leaves_nothing_behind() -> None:
    before = live_objects()
    for spki in (b"", b"garbage", signer("RS256").spki + b"\0", signer("ES256").spki):
        with pytest.raises(ValueError, match="key"):
            KeyHandle(b"", "RS256", spki=spki)
    assert live_objects() == before


def test_a_fallback_handle_keeps_its_callable_alive_and_lets_cycles_go() -> None:
    gc.collect()
    before = live_objects()["keys"]

    class Owner:
        def __init__(self) -> None:
            self.handle = KeyHandle(b"", "RS256", python_verify=self.answer)

        def answer(self, signature: bytes, signed: bytes) -> bool:
            return (signature, signed) == (b"s", b"t")

    owner = Owner()
    assert owner.handle.verify(b"t", b"s") is True
    handle = owner.handle
    del owner
    gc.collect()
    assert handle.verify(b"t", b"s") is True
    del handle
    gc.collect()
    assert live_objects()["keys"] == before


@needs_libcrypto
def test_a_key_works_in_a_forked_child() -> None:
    code = """
import os
from tests.signers import signer
from gateway._native.verify import KeyHandle
made = signer("ES256")
handle = KeyHandle(b"", "ES256", spki=made.spki)
signature = made.sign(b"text")
assert handle.verify(b"text", signature)
child = os.fork()
if child == 0:
    os._exit(0 if handle.verify(b"text", signature) and not handle.verify(b"test", signature) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


# --- OpenSSL's error queue --------------------------------------------------------------------------------------------


@pytest.fixture
def errors() -> Iterator[ctypes.CDLL]:
    """This thread's error queue in the very library that the handles use, empty at the start."""
    library = ctypes.CDLL(verify.LIBCRYPTO_PATH)
    library.ERR_peek_error.restype = ctypes.c_ulong
    library.d2i_PUBKEY.restype = ctypes.c_void_p
    library.ERR_clear_error()
    yield library
    library.ERR_clear_error()


@needs_libcrypto
@each_algorithm
def test_a_failure_leaves_no_error_in_the_queue_that_ssl_reads(algorithm: str, errors: ctypes.CDLL) -> None:
    handle, signature = handle_of(algorithm, "libcrypto"), signer(algorithm).sign(TEXT)
    for text, wrong in ((TEXT + b".", signature), (TEXT, flipped(signature, 5)), (TEXT, b"\xff" * len(signature))):
        assert not handle.verify(text, wrong)
        assert errors.ERR_peek_error() == 0
    assert handle.verify(TEXT, signature)
    assert errors.ERR_peek_error() == 0


@needs_libcrypto
def test_a_key_that_cannot_be_decoded_leaves_no_error_either(errors: ctypes.CDLL) -> None:
    garbage = ctypes.c_char_p(b"garbage")
    assert errors.d2i_PUBKEY(None, ctypes.byref(garbage), ctypes.c_long(7)) is None
    assert errors.ERR_peek_error() != 0  # so the queue that is looked at is the right one
    with pytest.raises(ValueError, match="decoded"):
        KeyHandle(b"", "RS256", spki=b"garbage")
    assert errors.ERR_peek_error() == 0


@needs_libcrypto
def test_tls_works_on_after_a_failed_signature() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    for algorithm in PUBLIC_NAMES:
        assert not handle_of(algorithm, "libcrypto").verify(TEXT, b"\xff" * len(signer(algorithm).sign(TEXT)))
        # With an error left in the queue this would be SSLError instead.
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()


# --- the fallback's callable ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [1, "yes", object(), None, False, 0, [True]])
def test_only_true_itself_is_a_yes(answer: object) -> None:
    handle = KeyHandle(b"k", "RS256", python_verify=lambda signature, signed: answer)  # type: ignore[arg-type,return-value]
    assert handle.verify(b"text", b"signature") is False


@pytest.mark.parametrize("error", [ValueError, MemoryError, RecursionError, SystemExit, GeneratorExit])
def test_an_exception_of_the_callable_is_a_no(error: type[BaseException]) -> None:
    def broken(signature: bytes, signed: bytes) -> bool:
        raise error

    assert KeyHandle(b"k", "RS256", python_verify=broken).verify(b"text", b"signature") is False


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt, also where a shell started us in the background and ignored it for us."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_inside_the_callable_is_a_no_and_still_interrupts() -> None:
    def interrupted(signature: bytes, signed: bytes) -> bool:
        raise KeyboardInterrupt

    handle = KeyHandle(b"k", "RS256", python_verify=interrupted)
    answers = []
    with pytest.raises(KeyboardInterrupt):
        answers.append(handle.verify(b"text", b"signature"))
        for _ in range(1000):  # the interpreter looks for signals between bytecodes
            pass
    assert answers in ([], [False])


def test_the_callable_is_not_asked_about_what_no_signer_makes() -> None:
    asked: list[bytes] = []

    def remember(signature: bytes, signed: bytes) -> bool:
        asked.append(signature)
        return True

    handle = KeyHandle(b"k", "ES256", python_verify=remember)
    assert not handle.verify(TEXT, bytes(64))
    assert not handle.verify(TEXT, b"\xff" * 64)
    assert not handle.verify(TEXT, b"\x01" * 63)
    assert asked == []
    assert handle.verify(TEXT, b"\x01" * 64)
    assert asked == [b"\x01" * 64]


# --- construction -----------------------------------------------------------------------------------------------------


def test_algorithm_names_are_exact() -> None:
    assert list(ALGORITHMS) == ["", *NAMES]
    for name in ("", "none", "None", "NONE", "rs256", "RS256 ", "RS257", "XS256", "HS25", "HS2560", "eddsa", "ed25519"):
        with pytest.raises(ValueError, match="unknown algorithm"):
            KeyHandle(b"", name, python_verify=lambda signature, signed: True)


def rsa_spki(bits: int) -> bytes:
    """An RSA public key of exactly `bits` bits; nobody has its private half."""
    return der(rsa.RSAPublicNumbers(65537, 2**bits - 3).public_key())


@needs_libcrypto
def test_rsa_keys_have_2048_to_8192_bits() -> None:
    for bits in (2048, 8192):
        KeyHandle(b"", "RS256", spki=rsa_spki(bits))
    for bits in (1024, 2047, 8193):
        with pytest.raises(ValueError, match=f"this one has {bits}"):
            KeyHandle(b"", "RS256", spki=rsa_spki(bits))


@pytest.mark.parametrize("algorithm", HMAC_NAMES)
@each_backend
def test_a_secret_is_at_least_as_long_as_the_digest(algorithm: str, backend: str) -> None:
    size = int(algorithm[2:]) // 8

    def handle(secret: bytes) -> KeyHandle:
        answer: Callable[[bytes, bytes], bool] | None = None if backend == "libcrypto" else (lambda _, __: True)
        return KeyHandle(b"", algorithm, secret=secret, python_verify=answer)

    assert handle(bytes(size)).algorithm == algorithm
    with pytest.raises(ValueError, match=f"at least {size} bytes"):
        handle(bytes(size - 1))


@needs_libcrypto
@pytest.mark.parametrize("algorithm", HMAC_NAMES)
def test_secrets_around_the_block_size_give_the_mac_of_rfc_2104(algorithm: str) -> None:
    for length in (64, 65, 127, 128, 129, 1000):
        secret = bytes(number % 251 for number in range(length))
        handle = KeyHandle(b"", algorithm, secret=secret)
        mac = hmac.digest(secret, TEXT, f"sha{algorithm[2:]}")
        assert handle.verify(TEXT, mac)
        assert not handle.verify(TEXT, flipped(mac, 0))


@needs_libcrypto
def test_a_key_of_another_kind_or_curve_is_refused() -> None:
    spki = {name: signer(name).spki for name in PUBLIC_NAMES}
    kinds = {name: "RSA" if name[:2] in ("RS", "PS") else name for name in PUBLIC_NAMES}
    for algorithm in PUBLIC_NAMES:
        for other in PUBLIC_NAMES:
            if kinds[algorithm] != kinds[other]:
                with pytest.raises(ValueError, match="not of the kind"):
                    KeyHandle(b"", algorithm, spki=spki[other])
    other_curve = der(ec.generate_private_key(ec.SECP256K1()).public_key())
    with pytest.raises(ValueError, match="not of the kind"):
        KeyHandle(b"", "ES256", spki=other_curve)


@needs_libcrypto
def test_a_point_off_its_curve_is_refused() -> None:
    spki = signer("ES256").spki
    with pytest.raises(ValueError, match="decoded"):
        KeyHandle(b"", "ES256", spki=flipped(spki, 8 * len(spki) - 1))


def test_public_keys_and_secrets_are_never_mixed_up() -> None:
    spki = signer("RS256").spki
    for arguments in (
        {"algorithm": "HS256", "spki": spki},
        {"algorithm": "RS256", "secret": spki},
        {"algorithm": "RS256", "secret": spki, "spki": spki},
        {"algorithm": "HS256", "secret": spki, "spki": spki},
        {"algorithm": "RS256"},
        {"algorithm": "HS256"},
    ):
        with pytest.raises(ValueError, match=r"does not verify with|needs `spki`"):
            KeyHandle(b"", **arguments)


@needs_libcrypto
def test_a_pool_has_at_most_256_contexts() -> None:
    for pool in (0, 1, 256):
        KeyHandle(b"", "ES256", spki=signer("ES256").spki, pool=pool)
    for pool in (-1, 257):
        with pytest.raises(ValueError, match="`pool`"):
            KeyHandle(b"", "ES256", spki=signer("ES256").spki, pool=pool)


def test_material_tells_keys_apart_and_nothing_of_a_secret() -> None:
    def answer(signature: bytes, signed: bytes) -> bool:
        return True

    def handle(algorithm: str, **key: bytes) -> KeyHandle:
        return KeyHandle(b"", algorithm, python_verify=answer, **key)  # type: ignore[arg-type]

    secret, other = bytes(64), bytes(63) + b"\1"
    assert handle("HS256", secret=secret).material == handle("HS512", secret=secret).material
    assert handle("HS256", secret=secret).material != handle("HS256", secret=other).material
    spki = signer("RS256").spki
    assert handle("RS256", spki=spki).material == handle("PS512", spki=spki).material
    assert handle("RS256", spki=spki).material != handle("ES256", spki=signer("ES256").spki).material
    assert handle("RS256").material != handle("RS256").material
    assert all(len(each.material) == 32 for each in (handle("HS256", secret=secret), handle("RS256", spki=spki)))
    elsewhere = run_python(
        "from gateway._native.verify import KeyHandle\n"
        "print(KeyHandle(b'', 'HS256', secret=bytes(64), python_verify=lambda *_: True).material.hex())"
    )
    assert bytes.fromhex(elsewhere.stdout) != handle("HS256", secret=secret).material  # keyed for each process


def test_a_handle_is_immutable_shows_no_key_and_cannot_be_copied_or_pickled() -> None:
    handle = handle_of("HS256", BACKENDS[0])
    assert repr(handle) == f"KeyHandle(kid=b'HS256', algorithm='HS256', backend='{BACKENDS[0]}')"
    for name in ("kid", "algorithm", "backend", "material"):
        with pytest.raises(AttributeError):
            setattr(handle, name, b"")
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            action(handle)


def test_arguments_of_the_wrong_type_are_type_errors() -> None:
    handle = handle_of("HS256", BACKENDS[0])
    for signed, signature in ((None, b""), (b"", None), ("text", b""), (bytearray(b"text"), b"")):
        with pytest.raises(TypeError):
            handle.verify(signed, signature)  # type: ignore[arg-type]


# --- the floor of the benches -----------------------------------------------------------------------------------------


@needs_libcrypto
@pytest.mark.parametrize("algorithm", PUBLIC_NAMES)
def test_the_bare_loop_takes_time_and_never_times_a_wrong_signature(algorithm: str) -> None:
    made, signature = signer(algorithm), signer(algorithm).sign(TEXT)
    assert raw_verify_loop(algorithm, made.spki, TEXT, signature, 3) > 3_000
    for text, proof, count in ((b"", signature, 1), (TEXT, signature[1:], 1), (TEXT, signature, 0)):
        with pytest.raises(ValueError, match="signature"):
            raw_verify_loop(algorithm, made.spki, text, proof, count)


# --- which backend ----------------------------------------------------------------------------------------------------

SHOW = "from gateway._native import verify as v; print(v.BACKEND, repr(v.LIBCRYPTO_PATH), v.BACKEND_REASON)"


@needs_libcrypto
def test_the_library_is_the_one_that_python_itself_uses() -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc/self/maps here")
    # In a process of its own: packages that other tests load (psycopg) bring copies of libcrypto along.
    show = (
        "import ssl; from gateway._native import verify; from pathlib import Path; print(verify.LIBCRYPTO_PATH);"
        "print(*{line.split()[-1] for line in Path('/proc/self/maps').read_text().splitlines() if 'libcrypto' in line})"
    )
    chosen, loaded = run_python(show).stdout.splitlines()
    assert {os.path.realpath(chosen)} == {os.path.realpath(path) for path in loaded.split()}
    assert os.path.realpath(verify.LIBCRYPTO_PATH) == os.path.realpath(chosen)
    assert ssl.OPENSSL_VERSION == verify.LIBCRYPTO_VERSION


@needs_libcrypto
def test_the_environment_forces_libcrypto() -> None:
    assert run_python(SHOW, PORTCULLIS_CRYPTO="libcrypto").stdout.startswith("libcrypto '/")


def test_the_environment_forces_cryptography_and_then_a_bare_key_is_refused() -> None:
    assert run_python(SHOW, PORTCULLIS_CRYPTO="cryptography").stdout.startswith("cryptography ''")
    code = "from gateway._native.verify import KeyHandle; KeyHandle(b'', 'HS256', secret=bytes(32))"
    done = run_python(code, PORTCULLIS_CRYPTO="cryptography")
    assert done.returncode == 1
    assert "there is no libcrypto to verify with" in done.stderr


def test_another_value_in_the_environment_is_an_error() -> None:
    done = run_python(SHOW, PORTCULLIS_CRYPTO="openssl")
    assert done.returncode == 1
    assert "must be `libcrypto` or `cryptography`, not `openssl`" in done.stderr


def preload(library: Path) -> str:
    """Return LD_PRELOAD with `library` behind what is preloaded already (a sanitizer must stay first)."""
    return f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()


# What an interpreter with a static OpenSSL looks like: its modules have no file, and the loader knows no libcrypto.
STATIC = "import hashlib, sys, types\nfor name in ('_hashlib', '_ssl'): sys.modules[name] = types.ModuleType(name)\n"


def test_an_interpreter_without_a_shared_libcrypto_falls_back_and_says_why() -> None:
    assert run_python(STATIC + SHOW, PORTCULLIS_CRYPTO="").stdout.startswith(
        "cryptography '' python's own modules are linked to no shared libcrypto"
    )
    done = run_python(STATIC + SHOW, PORTCULLIS_CRYPTO="libcrypto")
    assert done.returncode == 1
    assert "which cannot be used: python's own modules are linked to no shared libcrypto" in done.stderr


@needs_libcrypto
@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        ("int EVP_PKEY_verify() { return 1; }", "self-test failed for RS256"),
        ("int EVP_PKEY_verify() { return 0; }", "self-test failed for RS256"),
        (
            "int EVP_PKEY_verify() { return 0; } unsigned long OpenSSL_version_num() { return 0x20000000; }",
            "not OpenSSL 3",
        ),
        (
            "int EVP_PKEY_verify() { return 0; } unsigned long OpenSSL_version_num() { return 0x50000000; }",
            "not OpenSSL 3",
        ),
        ("int EVP_PKEY_verify() { return 0; } void *EVP_MD_fetch() { return 0; }", "offers no SHA-2"),
    ],
)
def test_a_library_that_gives_wrong_answers_or_is_no_openssl_is_not_used(
    functions: str, reason: str, tmp_path: Path
) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler for a false libcrypto")
    (tmp_path / "false.c").write_text(functions)
    library = tmp_path / "false.so"
    build = [compiler, "-shared", "-fPIC", "-w", "-Wl,--no-as-needed", "-o", str(library), str(tmp_path / "false.c")]
    subprocess.run([*build, verify.LIBCRYPTO_PATH], check=True, timeout=SECONDS_MAX)
    done = run_python(SHOW, LD_PRELOAD=preload(library), PORTCULLIS_CRYPTO="")
    assert done.stdout.startswith("cryptography ")
    assert reason in done.stdout


@needs_libcrypto
def test_a_library_that_lacks_a_function_is_not_used(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler for a false libcrypto")
    (tmp_path / "false.c").write_text("int EVP_PKEY_verify() { return 0; }")
    library = tmp_path / "false.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(library), str(tmp_path / "false.c")], check=True)
    done = run_python(SHOW, LD_PRELOAD=preload(library), PORTCULLIS_CRYPTO="")
    assert f"cryptography '{library}' `{library}` has no `ERR_clear_error`" in done.stdout


def test_the_module_loads_neither_cryptography_nor_the_gateway() -> None:
    code = (
        "import sys, gateway._native.verify\n"
        "print([n for n in sys.modules if n.startswith(('cryptography', 'gateway')) "
        "and n not in ('gateway', 'gateway._native', 'gateway._native.verify')])"
    )
    assert run_python(code).stdout.strip() == "[]"

"""PyJWT's own tests, from its sdist, run against our verifier (see pyjwt_ours.py); nothing of them is kept here."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = ("test_api_jwt", "test_api_jws", "test_jwt", "test_compressed_jwt", "test_advisory", "test_exceptions")
RUN_S = 120
PASSED_MIN = 150  # fewer would mean that the suite did not really run

# Tests that fail with our verdicts, and why that is right. In all of them we refuse the token.
_TYPES = "a claim of the wrong JSON type is refused, not converted"
_PADDING = "base64url with padding is not canonical (RFC 7515 §2)"
_DETACHED = "`b64` and `crit` are refused by being there (RFC 7797 is not supported)"
_CLASS = "refused by both; the exception names another of the token's faults"
EXPECTED = {
    "test_api_jwt.TestJWT::test_decode_works_if_iat_is_str_of_a_number": _TYPES,
    "test_api_jwt.TestJWT::test_decode_allows_aud_to_be_none": _TYPES,
    "test_api_jwt.TestJWT::test_raise_exception_token_with_aud_none_and_without_audience": _TYPES,
    "test_api_jwt.TestJWT::test_decode_raises_clean_error_if_claim_is_non_numeric_type[inf-iat]": _CLASS,
    "test_api_jwt.TestJWT::test_decodes_valid_es256_jwt[alb-padded]": _PADDING,
    "test_api_jws.TestJWS::test_decode_accepts_padded_crypto_segment": _PADDING,
    "test_api_jws.TestJWS::test_encode_with_headers_alg_none": _CLASS,
    "test_api_jws.TestJWS::test_decode_with_algo_none_should_fail": _CLASS,
    "test_api_jws.TestJWS::test_verify_signature_with_no_algo_header_throws_exception": _CLASS,
    "test_api_jws.TestJWS::test_encode_decode_ecdsa_related_algorithms"
    "[ES256K-jwk_ec_key_secp256k1.json-jwk_ec_pub_secp256k1.json]": "secp256k1 is no algorithm of ours",
    "test_api_jws.TestJWS::test_encode_decode_with_detached_content": _DETACHED,
    "test_api_jws.TestJWS::test_decode_b64_false_rejects_non_empty_payload_segment": _CLASS,
    "test_api_jws.TestJWS::test_decode_detached_content_without_proper_argument": _CLASS,
    "test_api_jws.TestJWS::test_decode_warns_on_unsupported_kwarg": _DETACHED,
    "test_api_jws.TestJWS::test_decode_complete_warns_on_unuspported_kwarg": _DETACHED,
    "test_api_jws.TestJWS::test_decode_accepts_supported_crit_extension": _DETACHED,
}


@pytest.fixture
def sources(pytestconfig: pytest.Config) -> Path:
    """Return the unpacked sdist of the installed PyJWT, fetched once; skip where it cannot be had."""
    name = f"pyjwt-{version('pyjwt')}"
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("sdists")
    if (folder / name / "tests").is_dir():
        return folder / name
    command = [sys.executable, "-m", "pip", "download", "--no-binary", ":all:", "--no-deps", name.replace("-", "==")]
    try:
        told = subprocess.run([*command, "-d", str(folder)], capture_output=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("PyJWT's own tests: fetching the sdist took too long")
    archive = folder / f"{name}.tar.gz"
    if told.returncode or not archive.exists():
        pytest.skip("PyJWT's own tests: the sdist cannot be fetched")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / name


def test_pyjwts_own_tests_agree_but_for_the_listed_differences(sources: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    told = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "pyjwt_ours", "-p", "no:asyncio", "-p", "no:cacheprovider"),
            *(f"--junitxml={report}", *(f"tests/{name}.py" for name in FILES)),
        ],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent.parent}", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert report.exists(), told.stdout + told.stderr
    passed, failed = set(), set()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.attrib['classname'].removeprefix('tests.')}::{case.attrib['name']}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(name)
        elif case.find("skipped") is None:
            passed.add(name)
    assert failed == set(EXPECTED), told.stdout
    assert len(passed) >= PASSED_MIN

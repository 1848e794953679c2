"""All of Cedar's public integration tests pass: validation, decisions, reasons and errors, every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy import corpus

CHUNKS = 16
HAND_WRITTEN, GENERATED = 22, 3961
REQUESTS_EACH = 8


@pytest.fixture(scope="session")
def folder(shared: Path) -> Path:
    return shared / "vectors" / "cedar"


def checked(tally: corpus.Tally) -> None:
    assert not tally.failures, f"{len(tally.failures)} failures\n" + "\n".join(tally.failures[:10])
    assert tally.decisions == tally.reasons == tally.errors == tally.requests


def test_the_hand_written_tests_pass(folder: Path) -> None:
    tally = corpus.Tally()
    for test in corpus.hand_written(folder):
        corpus.run(test, tally, with_oracle=True)
    checked(tally)
    assert (tally.tests, tally.requests) == (HAND_WRITTEN, 74)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_the_generated_tests_pass(folder: Path, chunk: int) -> None:
    tally = corpus.Tally()
    for number, test in enumerate(corpus.generated(folder, chunk, CHUNKS)):
        corpus.run(test, tally, with_oracle=number % 10 == 0)
    checked(tally)
    assert tally.tests == len(range(chunk, GENERATED, CHUNKS))
    assert tally.requests == tally.tests * REQUESTS_EACH


def test_hand_written_policies_validate_as_cedar_says(folder: Path) -> None:
    tally = corpus.Tally()
    for test in corpus.hand_written(folder):
        corpus.check_validation(test, tally)
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.validations == HAND_WRITTEN


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_generated_policies_validate_as_cedar_says(folder: Path, chunk: int) -> None:
    tally = corpus.Tally()
    for test in corpus.generated(folder, chunk, CHUNKS):
        corpus.check_validation(test, tally)
    assert not tally.failures, f"{len(tally.failures)} failures\n" + "\n".join(tally.failures[:10])
    assert tally.validations == tally.tests == len(range(chunk, GENERATED, CHUNKS))

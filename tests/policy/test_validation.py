"""The validator says of generated policies, under generated schemas, what Cedar's validator says: policy by policy."""

from __future__ import annotations

import random

import cedarpy
import pytest

from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema
from tests.policy import generate

POLICIES = 30


@pytest.mark.parametrize("seed", range(60))
def test_finds_fault_with_the_policies_that_cedar_finds_fault_with(seed: int) -> None:
    chooser = random.Random(f"validation {seed}")
    schema = generate.schema(chooser)
    text = "\n".join(generate.statement(chooser) for _ in range(POLICIES))
    ours = {fault.policy_id for fault in PolicySet.parse(text).validate(Schema.parse(schema), mode="strict").errors}
    theirs = {error.policy_id for error in cedarpy.validate_policies(text, schema).errors}
    assert ours == theirs
    assert theirs

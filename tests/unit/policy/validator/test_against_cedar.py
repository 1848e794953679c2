"""Random policies for random schemas: Cedar's own validator gives the same verdict, for the same kinds of reasons."""

import random

import cedarpy
import pytest

from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema
from gateway.policy.validator import Validator
from tests.unit.policy.validator.drawn import PolicyDrawer, draw_schema

SCHEMAS = 25  # in each part
POLICIES = 20  # for each schema

# What Cedar says, and our code for it.
REASONS = {
    "unrecognized entity type": "unknown_entity_type",
    "unrecognized action": "unknown_action",
    "is not declared as a valid eid": "unknown_entity_id",
    "unable to find an applicable action": "inapplicable_scope",
    "empty set literals": "empty_set",
    "are not compatible": "incompatible_types",
    "unexpected type": "unexpected_type",
    "access to optional attribute": "unguarded_attribute",
    "access to tag": "unguarded_tag",
    "wrong number of arguments": "wrong_arguments",
    "argument validation": "invalid_literal",
    "non-literal expressions": "computed_literal",
    "not found": "undeclared_attribute",
}


def reason(message: str) -> str:
    """Give our code for one of Cedar's messages."""
    for words, code in REASONS.items():
        if words in message:
            return code
    return message


@pytest.mark.parametrize("part", range(4))
def test_random_policies_are_judged_as_cedar_judges_them(part: int) -> None:
    differences = []
    accepted = 0
    for seed in range(part * SCHEMAS, (part + 1) * SCHEMAS):
        rng = random.Random(seed)
        drawn = draw_schema(rng)
        theirs = cedarpy.Schema.from_str(drawn.text)
        schema = Schema.parse(drawn.text)
        validator, permissive = Validator(schema), Validator(schema, "permissive")
        drawer = PolicyDrawer(rng, drawn, rng.choice((0, 0.02, 0.1)))
        for _ in range(POLICIES):
            text = drawer.policy()
            wanted = {reason(error.error) for error in cedarpy.validate_policies(text, theirs).errors}
            policies = PolicySet.parse(text)
            found = {fault.code for fault in validator.validate(policies).errors}
            if "undeclared_tags" in found:  # Cedar asks for a guard there, which would not help
                found = found - {"undeclared_tags"} | {"unguarded_tag"}
            accepted += not wanted
            if found != wanted:
                differences.append((seed, text, wanted, found))
            if not found and not permissive.validate(policies).ok:
                differences.append((seed, text, set(), {"refused by permissive mode only"}))
    assert differences == []
    assert 0.4 < accepted / (SCHEMAS * POLICIES) < 0.9  # else the comparison says little

"""What a config may map onto the principal, and what the claims of one token come to."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.config import Config, PolicyConfig, RouteConfig
from gateway.errors import ConfigError
from gateway.front.claims import ClaimPicker, PickedClaims, policy_claims_of
from gateway.front.principals import PrincipalClaims
from gateway.policy import EntityUid, Schema
from gateway.policy.schema import model

SCHEMA = Schema.parse("entity Role; entity Team; entity User in [Role] = { level?: Long };")


def picked(**claims: Any) -> PickedClaims:
    return PickedClaims(claims)


def test_only_claims_that_somebody_asks_for_are_kept() -> None:
    config = Config(
        policy=PolicyConfig(path="p", principal_claims={"level": "lvl"}, principal_parents={"roles": "Role"}),
        routes=(
            RouteConfig(
                path="/{id}",
                action='Action::"{claim.verb}"',
                resource='Doc::"{id}"',
                context={"a": "{claim.org.id}", "b": "{header.x-b}", "c": "{claim.none}"},
            ),
        ),
    )
    names = policy_claims_of(config)
    assert names == ("lvl", "none", "org.id", "roles", "verb")
    payload = orjson.dumps({"lvl": 3, "verb": None, "org": {"id": "x", "secret": "s"}, "email": "a@b"})
    assert ClaimPicker(names)(payload).values == {"lvl": 3, "org.id": "x"}


@pytest.mark.parametrize(
    ("config", "key", "problem"),
    [
        (PolicyConfig(principal="Robot", principal_claims={"level": "l"}), "policy.principal", "no entity type"),
        (PolicyConfig(principal_claims={"lvl": "l"}), "policy.principal_claims.lvl", "no such attribute"),
        (PolicyConfig(principal_parents={"g": "Team"}), "policy.principal_parents.g", "is in no `Team`"),
    ],
)
def test_what_the_schema_does_not_foresee_is_refused_with_its_key(config: PolicyConfig, key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PrincipalClaims(config, SCHEMA)
    [fault] = caught.value.faults
    assert (fault.key, problem in fault.problem, bool(fault.hint)) == (key, True, True)


def test_all_that_the_schema_does_not_foresee_is_told_at_once() -> None:
    config = PolicyConfig(principal_claims={"a": "a", "b": "b"}, principal_parents={"g": "Team"})
    with pytest.raises(ConfigError) as caught:
        PrincipalClaims(config, SCHEMA)
    assert [fault.key.rpartition(".")[2] for fault in caught.value.faults] == ["a", "b", "g"]


def test_a_mapping_that_reads_no_claim_is_not_asked() -> None:
    assert PrincipalClaims(PolicyConfig(), SCHEMA).native.define is None
    reading = PrincipalClaims(PolicyConfig(), SCHEMA)
    assert reading.text_of("sub") == 0
    assert reading.native.define is not None


def test_holes_of_one_kind_share_their_place() -> None:
    principals = PrincipalClaims(PolicyConfig(), None)
    assert [principals.text_of(name) for name in ("a", "b", "a")] == [0, 1, 0]
    text, number = model.StringType(), model.LongType()
    names = [principals.value_of("a", kind) for kind in (text, number, text, None)]
    assert names[0] == names[2]
    assert len(set(names)) == 3


def test_faults_are_told_once_a_claim_and_say_nothing_of_its_value() -> None:
    config = PolicyConfig(principal_claims={"level": "level"}, principal_parents={"roles": "Role"})
    principals = PrincipalClaims(config, SCHEMA)
    principals.text_of("level")
    principals.value_of("unit", model.RecordType({"id": model.Attribute(model.StringType())}))
    made = principals.define(picked(level=["hunter2"], roles=["a"], unit={"id": 77}))
    assert made.refused
    assert made.attributes == {}
    assert made.parents == (EntityUid("Role", "a"),)
    assert made.texts == (False,)
    assert made.invalid_values == frozenset({"claim 0"})
    assert [(fault.claim, fault.code) for fault in made.faults] == [("level", "wrong_type"), ("unit", "wrong_type")]
    assert "hunter2" not in str(made) and "77" not in str(made)


def test_a_definition_is_kept_with_the_token_for_one_mapping_only() -> None:
    config = PolicyConfig(principal_claims={"level": "level"})
    first, second = PrincipalClaims(config, SCHEMA), PrincipalClaims(PolicyConfig(), SCHEMA)
    claims = picked(level=3)
    assert first.define(claims) is first.define(claims)
    assert second.define(claims).attributes == {}
    assert first.define(claims).attributes == {"level": 3}


def test_a_token_without_kept_claims_defines_nothing() -> None:
    made = PrincipalClaims(PolicyConfig(principal_claims={"level": "level"}), SCHEMA).define(None)
    assert (made.attributes, made.parents, made.refused) == ({}, (), False)

from __future__ import annotations

from typing import Any

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.compiler.bundle import BundleError, bundle_key
from gateway.policy.engine import Answer, Engine
from gateway.policy.entities import Entities
from gateway.policy.explanation import PolicyExplanation
from gateway.policy.faults import PolicySyntaxError
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema

ALICE, BOB, TEAM = EntityUid("User", "alice"), EntityUid("User", "bob"), EntityUid("Team", "t")
VIEW, DOC = EntityUid("Action", "view"), EntityUid("Doc", "d")
TEXT = """
permit(principal in Team::"t", action == Action::"view", resource) when { principal.level > 2 && resource.owner == principal };
permit(principal, action == Action::"edit", resource);
forbid(principal, action, resource) when { context.blocked } unless { principal.level > context.limit };
"""  # noqa: E501


def engine(text: str = TEXT) -> Engine:
    entities = Entities()
    store = entities.store
    store.put(ALICE, {"level": 3}, [TEAM])
    store.put(BOB, {"level": 1})
    store.put(TEAM, {})
    store.put(VIEW, {})
    store.put(DOC, {"owner": ALICE})
    return Engine(PolicySet.parse(text), entities)


def explained(context: dict[str, Any], principal: EntityUid = ALICE) -> tuple[PolicyExplanation, ...]:
    return engine().explain(principal, VIEW, DOC, context).policies


def test_a_request_is_allowed_and_says_by_what() -> None:
    deciding = engine()
    assert deciding.allows(ALICE, VIEW, DOC, {"blocked": False})
    assert deciding.authorize(ALICE, VIEW, DOC, {"blocked": False}) == Answer(True, frozenset({"policy0"}), frozenset())
    assert not deciding.allows(BOB, VIEW, DOC, {"blocked": False})


def test_an_erring_forbid_is_reported_and_skipped() -> None:
    assert engine().authorize(ALICE, VIEW, DOC, {}) == Answer(True, frozenset({"policy0"}), frozenset({"policy2"}))


def test_other_policies_make_another_engine_and_leave_this_one() -> None:
    first = engine()
    second = first.with_policies(first.policies.without("policy0"))
    assert first.allows(ALICE, VIEW, DOC, {"blocked": False})
    assert not second.allows(ALICE, VIEW, DOC, {"blocked": False})
    assert second.program("policy1") is first.program("policy1")
    third = second.with_policies(second.policies.with_policy("mine", "permit(principal, action, resource);"))
    assert third.authorize(ALICE, VIEW, DOC, {"blocked": False}).reasons == {"mine"}


def test_links_of_a_template_share_its_program() -> None:
    entities = Entities()
    policies = PolicySet.parse("permit(principal == ?principal, action, resource in ?resource) when { context.ok };")
    for name, who in (("a", ALICE), ("b", BOB)):
        policies = policies.link("policy0", name, {"?principal": who, "?resource": DOC})
    linked = Engine(policies, entities)
    assert linked.program("a") is linked.program("b")
    assert linked.authorize(BOB, VIEW, DOC, {"ok": True}).reasons == {"b"}


def test_a_policy_that_allows_is_satisfied() -> None:
    first = explained({"blocked": False})[0]
    assert (first.policy_id, first.effect, first.outcome) == ("policy0", "permit", "satisfied")


def test_a_head_that_does_not_hold_is_named() -> None:
    first = explained({"blocked": False}, BOB)[0]
    assert (first.outcome, first.clause, first.text) == ("unsatisfied", "principal", 'principal in Team::"t"')
    second = explained({"blocked": False})[1]
    assert (second.outcome, second.clause, second.text) == ("unsatisfied", "action", 'action == Action::"edit"')


def test_the_conjunct_that_failed_is_named_with_its_operands() -> None:
    deciding = engine()
    deciding.entities.store.put(DOC, {"owner": BOB})
    first = deciding.explain(ALICE, VIEW, DOC, {"blocked": False}).policies[0]
    assert (first.outcome, first.clause, first.text) == ("unsatisfied", "when", "resource.owner == principal")
    assert {(o.text, o.value, o.error) for o in first.operands} == {
        ("resource.owner", BOB, None),
        ("principal", ALICE, None),
    }


def test_an_error_has_its_code_and_the_part_that_failed() -> None:
    third = explained({"blocked": True})[2]
    assert (third.outcome, third.code, third.clause) == ("error", "missing_attribute", "unless")
    assert third.text == "context.limit"


def test_the_reads_of_all_policies_are_known() -> None:
    reads = engine().reads()
    assert ("principal", "level") in reads.attributes
    assert reads.context_paths() == {("context", "blocked"), ("context", "limit")}
    assert engine().reads("policy1").attributes == frozenset()


def test_an_engine_comes_back_from_its_bytes_without_reading_policies() -> None:
    first = engine()
    key = bundle_key([TEXT.encode()])
    read: list[str] = []

    def policies() -> PolicySet:
        read.append("once")
        return PolicySet.parse(TEXT)

    second = Engine.from_bytes(first.to_bytes(key), key, policies, first.entities)
    request = (ALICE, VIEW, DOC, {"blocked": False})
    assert second.authorize(*request) == first.authorize(*request)
    assert second.ids == first.ids
    assert read == []
    assert second.explain(*request) == first.explain(*request)
    assert second.reads() == first.reads()
    assert read == ["once"]
    third = second.with_policies(second.policies.without("policy0"))
    assert third.ids == ("policy1", "policy2")


def test_bytes_of_other_sources_make_no_engine() -> None:
    first = engine()
    key = bundle_key([TEXT.encode()])
    with pytest.raises(BundleError):
        Engine.from_bytes(first.to_bytes(key), bundle_key([b"other"]), lambda: first.policies, first.entities)


def test_the_actions_of_a_schema_are_entities() -> None:
    schema = Schema.parse("""
        entity User; entity Doc;
        action any; action read in [any]; action view in [read] appliesTo { principal: User, resource: Doc };
    """)
    entities = Entities()
    policies = PolicySet.parse('permit(principal, action in Action::"any", resource);')
    deciding = Engine(policies, entities, schema)
    assert deciding.allows(ALICE, VIEW, DOC)
    assert not Engine(policies, Entities()).allows(ALICE, VIEW, DOC)
    revision = entities.store.revision
    Engine(policies, entities, schema)
    assert entities.store.revision == revision


def test_a_policy_beyond_the_machine_is_refused() -> None:
    items = ", ".join(f"context.a{number}" for number in range(5000))
    with pytest.raises(PolicySyntaxError, match="4096"):
        engine(f"permit(principal, action, resource) when {{ [{items}].contains(1) }};")

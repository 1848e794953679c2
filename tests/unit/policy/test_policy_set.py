from __future__ import annotations

import json
import random
from typing import Any

import cedarpy
import pytest

from gateway.policy import EntityUid, PolicySet, PolicySyntaxError
from gateway.policy.language import tree
from gateway.policy.policy_set import Policy, Template

PERMIT = "permit (principal, action, resource);"
FORBID = "forbid (principal, action, resource);"
TEMPLATE = "permit (principal in ?principal, action, resource is Doc in ?resource) when { true };"
ALICE, BOB, FOLDER = EntityUid("User", "alice"), EntityUid("User", "bob"), EntityUid("Folder", "f")
VALUES = {"?principal": ALICE, "?resource": FOLDER}


def refused(made: Any) -> str:
    """Give the code of the one fault that something is refused with."""
    with pytest.raises(PolicySyntaxError) as caught:
        made()
    [fault] = caught.value.faults
    return fault.code


# --- ids


def test_ids_count_all_statements_of_a_text_as_cedar_does() -> None:
    policies = PolicySet.parse(f"{PERMIT}{TEMPLATE}{FORBID}")
    assert list(policies.policies) == ["policy0", "policy2"]
    assert list(policies.templates) == ["policy1"]
    theirs = json.loads(cedarpy.policies_to_json_str(f"{PERMIT}{TEMPLATE}{FORBID}"))
    assert set(theirs["staticPolicies"]) == set(policies.policies)
    assert set(theirs["templates"]) == set(policies.templates)


def test_an_annotation_is_the_id_only_where_asked() -> None:
    text = f'@id("a") {PERMIT} {FORBID} @id {PERMIT} @id("") {PERMIT}'
    assert list(PolicySet.parse(text).policies) == ["policy0", "policy1", "policy2", "policy3"]
    named = PolicySet.parse(text, ids="annotation")
    assert list(named.policies) == ["a", "policy1", "policy2", "policy3"]
    assert named.policies["a"].annotations == {"id": "a"}


def test_an_id_that_two_policies_have_is_refused_with_every_place() -> None:
    with pytest.raises(PolicySyntaxError) as caught:
        PolicySet.parse(
            f'@id("a") {PERMIT}\n@id("a") {TEMPLATE}\n  @id("a") {PERMIT}', file="p.cedar", ids="annotation"
        )
    assert [(fault.code, fault.file, fault.line, fault.column) for fault in caught.value.faults] == [
        ("duplicate_policy_id", "p.cedar", 2, 1),
        ("duplicate_policy_id", "p.cedar", 3, 3),
    ]
    assert (
        refused(lambda: PolicySet.parse(f'@id("policy1") {PERMIT} {PERMIT}', ids="annotation")) == "duplicate_policy_id"
    )


def test_a_policy_knows_its_place() -> None:
    policies = PolicySet.parse(f"{PERMIT}\n  {FORBID}", file="p.cedar").policies
    assert policies["policy1"].place == tree.Place("p.cedar", 2, 3, len(PERMIT) + 3)
    assert PolicySet.from_json(PolicySet.parse(PERMIT).to_json()).policies["policy0"].place.file is None


def test_what_a_set_holds_cannot_be_changed_from_outside() -> None:
    policies = PolicySet.parse(f"{PERMIT}{TEMPLATE}")
    with pytest.raises(TypeError):
        policies.policies["policy0"] = policies.policies["policy0"]  # type: ignore[index]
    with pytest.raises(TypeError):
        del policies.templates["policy1"]  # type: ignore[attr-defined]


# --- templates


def test_a_link_fills_the_slots_of_its_template() -> None:
    before = PolicySet.parse(f"{PERMIT}{TEMPLATE}")
    policies = before.link("policy1", "alice", VALUES)
    assert "alice" not in before
    link = policies.policies["alice"]
    assert link.template_id == "policy1"
    assert link.statement is policies.templates["policy1"].statement
    assert link.slots == VALUES
    principal, action, resource = link.scope()
    assert principal == tree.Constraint("in", (ALICE,))
    assert action == tree.Constraint()
    assert resource == tree.Constraint("is in", (FOLDER,), "Doc")
    assert link.place == policies.templates["policy1"].place


def test_the_scope_of_a_policy_is_that_of_its_statement() -> None:
    policy = PolicySet.parse(PERMIT).policies["policy0"]
    assert policy.scope() == (tree.Constraint(), tree.Constraint(), tree.Constraint())


@pytest.mark.parametrize("values", [{}, {"?principal": ALICE}, VALUES | {"?action": BOB}])
def test_a_link_fills_every_slot_and_no_other(values: dict[str, EntityUid]) -> None:
    policies = PolicySet.parse(TEMPLATE)
    assert refused(lambda: policies.link("policy0", "x", values)) == "wrong_slots"


def test_a_link_needs_a_template_and_a_free_id() -> None:
    policies = PolicySet.parse(f"{PERMIT}{TEMPLATE}")
    assert refused(lambda: policies.link("policy0", "x", VALUES)) == "unknown_template"
    for taken in ("policy0", "policy1"):
        assert refused(lambda taken=taken: policies.link("policy1", taken, VALUES)) == "duplicate_policy_id"


def test_a_policy_with_a_hole_is_no_policy() -> None:
    statement = PolicySet.parse(TEMPLATE).templates["policy0"].statement
    assert refused(lambda: PolicySet([Policy("x", statement)])) == "wrong_slots"


# --- changes


def test_a_changed_set_shares_what_stayed() -> None:
    before = PolicySet.parse(f"{PERMIT}{FORBID}")
    after = before.with_policy("policy1", 'permit (principal == User::"a", action, resource);').with_policy(
        "new", FORBID
    )
    assert list(before.policies) == ["policy0", "policy1"]
    assert list(after.policies) == ["policy0", "policy1", "new"]
    assert after.policies["policy0"] is before.policies["policy0"]
    assert after.policies["policy1"].statement.principal.entities == (EntityUid("User", "a"),)
    gone = after.without("policy0")
    assert list(gone.policies) == ["policy1", "new"]
    assert "policy0" in after
    with pytest.raises(KeyError):
        gone.without("policy0")


@pytest.mark.parametrize("text", ["", f"{PERMIT}{PERMIT}"])
def test_one_policy_is_put_in_at_a_time(text: str) -> None:
    assert refused(lambda: PolicySet().with_policy("x", text)) == "not_one_policy"


def test_links_go_with_their_template() -> None:
    policies = PolicySet.parse(TEMPLATE).link("policy0", "a", VALUES).link("policy0", "b", VALUES)
    changed = policies.with_policy("policy0", TEMPLATE.replace("true", "false"))
    assert changed.policies["a"].statement is changed.templates["policy0"].statement
    assert list(changed.policies) == ["a", "b"]
    assert list(policies.without("policy0").policies) == []
    replaced = policies.with_policy("policy0", PERMIT)
    assert list(replaced.policies) == ["policy0"]
    assert list(replaced.templates) == []
    back = replaced.with_policy("policy0", TEMPLATE)
    assert list(back.policies) == []
    other_slots = "permit (principal, action, resource in ?resource);"
    assert refused(lambda: policies.with_policy("policy0", other_slots)) == "wrong_slots"


def test_sets_are_merged_where_their_ids_differ() -> None:
    one = PolicySet.parse(f"{PERMIT}{TEMPLATE}").link("policy1", "link", VALUES)
    two = PolicySet.parse(FORBID)
    both = PolicySet.merge([one.renamed("a."), two.renamed("b.")])
    assert list(both.policies) == ["a.policy0", "a.link", "b.policy0"]
    assert both.policies["a.link"].template_id == "a.policy1"
    assert list(both.templates) == ["a.policy1"]
    assert len(both) == 3
    assert refused(lambda: PolicySet.merge([one, two])) == "duplicate_policy_id"
    assert list(PolicySet.merge([]).policies) == []


# --- JSON


def test_json_reads_back_as_the_same_set() -> None:
    policies = PolicySet.parse(f'@id("x") {PERMIT}{TEMPLATE}{FORBID}').link("policy1", "link", VALUES)
    data = json.loads(json.dumps(policies.to_json()))
    again = PolicySet.from_json(data)
    assert dict(again.policies) == dict(policies.policies)
    assert dict(again.templates) == dict(policies.templates)
    assert again.to_json() == data
    assert cedarpy.policies_from_json_str(json.dumps(data))


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ([], "/"),
        ({"policies": {}}, "/policies"),
        ({"staticPolicies": []}, "/staticPolicies"),
        ({"templates": 1}, "/templates"),
        ({"templateLinks": {}}, "/templateLinks"),
        ({"templateLinks": [1]}, "/templateLinks/0"),
        ({"templateLinks": [{"templateId": "t", "newId": "x"}]}, "/templateLinks/0"),
        ({"templateLinks": [{"templateId": "t", "newId": "x", "values": {}}]}, "/templateLinks/0/templateId"),
        ({"templateLinks": [{"templateId": 1, "newId": "x", "values": {}}]}, "/templateLinks/0"),
    ],
)
def test_a_faulty_policy_set_is_refused_with_its_place(data: Any, pointer: str) -> None:
    with pytest.raises(PolicySyntaxError) as caught:
        PolicySet.from_json(data)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_a_fault_within_a_policy_names_the_policy() -> None:
    data = PolicySet.parse(PERMIT).to_json()
    data["staticPolicies"]["policy0"]["effect"] = "allow"
    with pytest.raises(PolicySyntaxError) as caught:
        PolicySet.from_json(data)
    assert [(fault.policy_id, fault.pointer) for fault in caught.value.faults] == [("policy0", "/effect")]


def test_a_fault_within_a_link_has_its_place() -> None:
    data = PolicySet.parse(TEMPLATE).link("policy0", "x", VALUES).to_json()
    data["templateLinks"][0]["values"]["?principal"] = {"type": "if", "id": "x"}
    with pytest.raises(PolicySyntaxError) as caught:
        PolicySet.from_json(data)
    assert [fault.pointer for fault in caught.value.faults] == ["/templateLinks/0/values/type"]


# --- a text that changed


def same(one: PolicySet, other: PolicySet) -> bool:
    def seen(policies: PolicySet) -> list[tuple[str, Policy | Template, tree.Place]]:
        found: list[Policy | Template] = [*policies.policies.values(), *policies.templates.values()]
        return [(each.id, each, each.place) for each in found]

    return seen(one) == seen(other)


@pytest.mark.parametrize("ids", ["positional", "annotation"])
@pytest.mark.parametrize("seed", range(3))
def test_a_text_read_like_an_earlier_one_gives_the_same_set(ids: Any, seed: int) -> None:
    rnd = random.Random(seed)
    kinds = [PERMIT, FORBID, TEMPLATE, "// c\n", "\n", f'@id("{{}}") {PERMIT}', f'@id("{{}}") {TEMPLATE}']
    pieces: list[str] = []
    known = PolicySet.parse("", ids=ids)
    for number in range(200):
        piece = rnd.choice(kinds).replace("{}", f"p{number}")
        match rnd.randrange(3) if len(pieces) < 30 else 2:
            case 0:
                pieces.insert(rnd.randrange(len(pieces) + 1), piece)
            case 1 if pieces:
                pieces[rnd.randrange(len(pieces))] = piece
            case _ if pieces:
                pieces.pop(rnd.randrange(len(pieces)))
        text = "".join(pieces)
        again = PolicySet.parse(text, ids=ids, like=known)
        assert same(again, PolicySet.parse(text, ids=ids))
        known = again


def test_what_neither_changed_nor_moved_is_the_same_object() -> None:
    text = "\n".join(f"permit (principal, action, resource) when {{ {number} == 1 }};" for number in range(100))
    before = PolicySet.parse(text)
    after = PolicySet.parse(text.replace("50 ==", "51 =="), like=before)
    changed = [name for name, policy in after.policies.items() if policy is not before.policies[name]]
    assert changed == ["policy50"]
    moved = PolicySet.parse(text.replace("50 ==", "5000 =="), like=before)
    assert all(
        policy.statement is before.policies[name].statement
        for name, policy in moved.policies.items()
        if name != "policy50"
    )
    assert moved.policies["policy49"] is before.policies["policy49"]
    assert moved.policies["policy51"].place.line == 52
    assert moved.policies["policy51"].place.offset == before.policies["policy51"].place.offset + 2


def test_only_a_set_that_is_one_text_is_read_again() -> None:
    before = PolicySet.parse(PERMIT, file="a")
    for like in (
        before.with_policy("x", FORBID),
        PolicySet.parse(PERMIT, file="b"),
        PolicySet.parse(PERMIT, file="a", ids="annotation"),
        PolicySet(),
    ):
        after = PolicySet.parse(f"{PERMIT} {FORBID}", file="a", like=like)
        assert same(after, PolicySet.parse(f"{PERMIT} {FORBID}", file="a"))


def test_a_faulty_text_is_refused_and_leaves_the_earlier_set_as_it_was() -> None:
    before = PolicySet.parse(f"{PERMIT}\n{FORBID}")
    assert refused(lambda: PolicySet.parse(f"{PERMIT}\n{FORBID}\npermit;", like=before)) == "unexpected_token"
    assert list(before.policies) == ["policy0", "policy1"]

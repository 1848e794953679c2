"""What the validator asks of a schema."""

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.validator.declared import Declared, is_action_type
from gateway.policy.validator.types import BOOL, LONG, STRING, Entity, Field, Record
from tests.unit.policy.validator.schema_text import PARSED


def test_each_kind_of_request_is_an_environment() -> None:
    declared = Declared(PARSED)
    found = {(each.principal_name, str(each.action), each.resource_name) for each in declared.environments}
    assert found == {
        ("User", 'Action::"read"', "Doc"),
        ("User", 'Action::"read"', "Folder"),
        ("Robot", 'Action::"read"', "Doc"),
        ("Robot", 'Action::"read"', "Folder"),
        ("User", 'Action::"write"', "Doc"),
        ("User", 'Other::Action::"audit"', "Doc"),
    }
    assert len(declared.environments_of(EntityUid("Action", "read"))) == 4
    assert declared.environments_of(EntityUid("Action", "readers")) == ()
    assert declared.environments_of(EntityUid("Action", "none")) == ()


def test_an_entity_that_is_named_has_a_type_if_it_is_declared() -> None:
    declared = Declared(PARSED)
    assert declared.literal(EntityUid("User", "a")) == Entity(frozenset(("User",)))
    assert declared.literal(EntityUid("Action", "read")) == Entity(frozenset(("Action",)))
    assert declared.literal(EntityUid("Usr", "a")) is None
    assert declared.literal(EntityUid("Action", "none")) is None


def test_one_of_several_entities_has_the_attributes_that_all_have() -> None:
    declared = Declared(PARSED)
    either = Entity(frozenset(("User", "Robot")))
    assert declared.attributes(either) == Record({"age": Field(LONG), "name": Field(STRING, False)}, is_open=True)
    assert declared.field(either, "maker") is None
    assert declared.may_have(either, "maker")
    assert not declared.may_have(either, "nothing")


def test_tags_are_those_of_the_types_that_have_any() -> None:
    declared = Declared(PARSED)
    assert declared.tags(Entity(frozenset(("User", "Robot")))) == [STRING]
    assert declared.tags(Entity(frozenset(("Robot", "Action")))) == []


def test_hierarchies_say_what_may_be_in_what() -> None:
    declared = Declared(PARSED)
    assert declared.may_be_in("User", "Group")
    assert declared.may_be_in("User", "User")
    assert not declared.may_be_in("Group", "User")
    assert declared.may_be_in("Other::Action", "Action")
    assert not declared.may_be_in("Action", "Other::Action")
    assert declared.is_action_in(EntityUid("Other::Action", "audit"), EntityUid("Action", "readers"))


@pytest.mark.parametrize(
    ("name", "is_one"), [("Action", True), ("N::Action", True), ("Reaction", False), ("A::B", False)]
)
def test_types_of_actions_are_known_by_their_names(name: str, is_one: bool) -> None:
    assert is_action_type(name) is is_one


def test_names_that_are_ready_for_hints_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.validator.declared._WORDS_KEPT_MAX", 2)
    declared = Declared(PARSED)
    for name in "abcde":
        assert declared.attribute_words(Record({name * 3: Field(BOOL)})).nearest(name * 4) == name * 3
    assert len(declared._words) <= 2

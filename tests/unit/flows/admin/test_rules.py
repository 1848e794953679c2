"""Who may do what: the built-in policies as a table, and an operator's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.admin_checks import BUILT_IN_ROLES
from gateway.flows.admin import ACTIONS, CHANGES, ROLES, Administrator, AdminRules
from gateway.flows.admin.rules import ENDS, MANAGES, POLICIES, READS, read_rules

LOOKS = ("user.read", "session.read", "device.read", "grant.read")
AT_USERS = {*LOOKS, *ENDS, *MANAGES}


def admin(*roles: str) -> Administrator:
    return Administrator(id="usr_admin", kind="user", roles=frozenset(roles))


def at_user(rules: AdminRules, role: str, *, is_admin: bool = False) -> set[str]:
    someone = admin(role)
    return {
        action
        for action in AT_USERS
        if rules.allows_at_user(someone, action, "usr_other", is_active=True, is_admin=is_admin)
    }


@pytest.mark.parametrize(
    ("role", "others", "administrators", "gateway"),
    [
        ("reader", LOOKS, LOOKS, {"state.read", "user.read", "client.read"}),
        ("helpdesk", (*LOOKS, *ENDS), LOOKS, {"user.read"}),
        ("auditor", ("user.read",), ("user.read",), {"state.read", "user.read", "audit.read"}),
        ("operator", AT_USERS, LOOKS, {"state.read", "user.read", "client.read", "audit.read"}),
        ("owner", AT_USERS, AT_USERS, {"state.read", "user.read", "client.read", "audit.read"}),
    ],
)
def test_each_role_may_do_what_it_is_for_and_nothing_else(
    role: str, others: tuple[str, ...], administrators: tuple[str, ...], gateway: set[str]
) -> None:
    rules = AdminRules()
    assert at_user(rules, role) == set(others)
    assert at_user(rules, role, is_admin=True) == set(administrators)
    whole = ("state.read", "user.read", "client.read", "audit.read")
    assert {action for action in whole if rules.allows_at_gateway(admin(role), action)} == gateway
    assert rules.allows_at_client(admin(role), "client.read", "app") is ("client.read" in gateway)


def test_who_has_no_role_or_an_unknown_one_may_do_nothing() -> None:
    rules = AdminRules()
    for someone in (admin(), admin("Owner"), admin("root")):
        assert not any(rules.allows_at_gateway(someone, action) for action in ACTIONS)
        assert not any(
            rules.allows_at_user(someone, action, "usr_other", is_active=True, is_admin=False) for action in ACTIONS
        )


@pytest.mark.parametrize("role", ROLES)
def test_nobody_deactivates_themselves(role: str) -> None:
    assert not AdminRules().allows_at_user(admin(role), "user.deactivate", "usr_admin", is_active=True, is_admin=True)


def test_roles_add_up() -> None:
    both = admin("auditor", "helpdesk")
    rules = AdminRules()
    assert rules.allows_at_gateway(both, "audit.read")
    assert rules.allows_at_user(both, "session.end", "usr_other", is_active=True, is_admin=False)


def test_an_operators_own_policies_take_the_place_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "admin.cedar"
    file.write_text('permit (principal in Role::"night-shift", action == Action::"session.end", resource);')
    rules = read_rules(str(file))
    assert at_user(rules, "night-shift") == {"session.end"}
    assert at_user(rules, "owner") == set()
    assert at_user(read_rules(""), "owner") == AT_USERS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permit (principal, action", "admin.cedar"),
        ('permit (principal, action == Action::"fly", resource);', "fly"),
        ("permit (principal, action, resource) when { resource.salary > 5 };", "salary"),
    ],
)
def test_policies_that_do_not_fit_are_refused_with_their_place(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "admin.cedar"
    file.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_rules(str(file))
    with pytest.raises(ValueError, match="cannot be read"):
        read_rules(str(tmp_path / "absent"))


def test_the_lists_of_roles_and_actions_are_the_policies_own() -> None:
    assert ROLES == BUILT_IN_ROLES
    assert all(f'Role::"{role}"' in POLICIES for role in ROLES)
    assert {*ENDS, *MANAGES} == CHANGES
    assert set(ACTIONS) == {*READS, "audit.read", *CHANGES}

"""Repositories of organisations: a ladder of permissions, given to people and to nested teams."""

from __future__ import annotations

import itertools
import random

from bench.workloads.base import Ask, Builder, Workload, some

LADDER = ("readers", "triagers", "writers", "maintainers", "admins")
NEEDED = {
    "pull": "readers",
    "fork": "readers",
    "assign_issue": "triagers",
    "label_issue": "triagers",
    "push": "writers",
    "edit_issue": "writers",
    "protect_branch": "maintainers",
    "add_reader": "admins",
    "delete_repo": "admins",
}

SCHEMA = f"""
entity Permission in [Permission];
entity Organization = {{ owners: Permission, members: Permission }};
entity Team in [Team, Permission];
entity User in [Team, Permission];
entity Repository = {{ {", ".join(f"{name}: Permission" for name in LADDER)}, organization: Organization }};
action {", ".join(NEEDED)} appliesTo {{ principal: [User], resource: [Repository] }};
"""

POLICIES = "\n".join(
    f'permit (principal, action == Action::"{action}", resource) when {{ principal in resource.{name} }};'
    for action, name in NEEDED.items()
)

FIELDS = "act, name"
MATCHER = "r.act == p.act && within(r.sub, r.obj, p.name)"
RULES: list[tuple[str, ...]] = list(NEEDED.items())

REGO = f"""
package bench
import rego.v1

default allow := false
needed := {{{", ".join(f'"{action}": "{name}"' for action, name in NEEDED.items())}}}
allow if data.above[input.principal][data.attributes[input.resource][needed[input.action]]]
"""


def github(size: int, asks: int, seed: int = 1) -> Workload:
    """Make `size` users, teams, organisations and repositories each, and so many questions."""
    chooser = random.Random(seed)
    made = Builder()
    users = [("User", f"user{i}") for i in range(size)]
    teams = [("Team", f"team{i}") for i in range(size)]
    organizations = [("Organization", f"org{i}") for i in range(size)]
    repositories = [("Repository", f"repo{i}") for i in range(size)]
    for index, team in enumerate(teams):
        made.add(team, some(chooser, teams[:index], 1))
    for user in users:
        made.add(user, some(chooser, teams, 3))
    for organization in organizations:
        nodes = {name: made.add(("Permission", f"{organization[1]}#{name}")) for name in ("owners", "members")}
        made.link(nodes["owners"], nodes["members"])
        made.link(chooser.choice(users), nodes["owners"])
        for member in some(chooser, [*users, *teams], 3):
            made.link(member, nodes["members"])
        made.add(organization, **nodes)
    for repository in repositories:
        steps = {name: made.add(("Permission", f"{repository[1]}#{name}")) for name in LADDER}
        for lower, higher in itertools.pairwise(LADDER):
            made.link(steps[higher], steps[lower])
        organization = chooser.choice(organizations)
        made.link(("Permission", f"{organization[1]}#owners"), steps["admins"])
        for name in LADDER:
            for holder in some(chooser, [*users, *teams], 2):
                made.link(holder, steps[name])
        made.add(repository, **steps, organization=organization)
    questions = [
        Ask(chooser.choice(users), chooser.choice(tuple(NEEDED)), chooser.choice(repositories)) for _ in range(asks)
    ]
    return Workload("github", POLICIES, SCHEMA, made.entities(), questions, FIELDS, MATCHER, RULES, REGO)

"""Task lists, owned by one person and shared with teams that read or edit them."""

from __future__ import annotations

import random

from bench.workloads.base import Ask, Builder, Workload, some

ON_LISTS = ("GetList", "UpdateList", "DeleteList", "CreateTask", "UpdateTask", "DeleteTask", "EditShare")
READING = ("GetList",)
EDITING = ("GetList", "UpdateList", "CreateTask", "UpdateTask", "DeleteTask")

SCHEMA = f"""
entity Application;
entity Team in [Team];
entity User in [Team, Application] = {{ joined: Long }};
entity List in [Application] = {{ owner: User, name: String, readers: Team, editors: Team }};
action CreateList, GetLists appliesTo {{ principal: [User], resource: [Application] }};
action {", ".join(ON_LISTS)} appliesTo {{ principal: [User], resource: [List] }};
"""


def _any_of(actions: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'Action::"{action}"' for action in actions) + "]"


POLICIES = f"""
permit (principal, action in [Action::"CreateList", Action::"GetLists"], resource == Application::"TinyTodo");

permit (principal, action, resource is List in Application::"TinyTodo")
when {{ resource.owner == principal }};

permit (principal, action in {_any_of(READING)}, resource is List)
when {{ principal in resource.readers || principal in resource.editors }};

permit (principal, action in {_any_of(EDITING)}, resource is List)
when {{ principal in resource.editors }};
"""

FIELDS = "act, kind, name"
MATCHER = """r.act == p.act && (p.kind == "any" || p.kind == "is" && value(r.obj, p.name) == r.sub || \
p.kind == "within" && within(r.sub, r.obj, p.name))"""

RULES: list[tuple[str, ...]] = [
    *((action, "any", "") for action in ("CreateList", "GetLists")),
    *((action, "is", "owner") for action in ON_LISTS),
    *((action, "within", "readers") for action in READING),
    *((action, "within", "editors") for action in EDITING),
]

REGO = f"""
package bench
import rego.v1

default allow := false
object := data.attributes[input.resource]
reading := {{{", ".join(f'"{action}"' for action in READING)}}}
editing := {{{", ".join(f'"{action}"' for action in EDITING)}}}
allow if {{ input.action in {{"CreateList", "GetLists"}}; input.resource == "Application::TinyTodo" }}
allow if object.owner == input.principal
allow if {{ reading[input.action]; data.above[input.principal][object.readers] }}
allow if {{ editing[input.action]; data.above[input.principal][object.editors] }}
"""


def tinytodo(size: int, asks: int, seed: int = 1) -> Workload:
    """Make `size` users, teams and lists each, and so many questions."""
    chooser = random.Random(seed)
    made = Builder()
    application = made.add(("Application", "TinyTodo"))
    users = [("User", f"user{i}") for i in range(size)]
    teams = [("Team", f"team{i}") for i in range(size)]
    lists = [("List", f"list{i}") for i in range(size)]
    for index, team in enumerate(teams):
        made.add(team, some(chooser, teams[:index], 1))
    for user in users:
        made.add(user, [application, *some(chooser, teams, 3)], joined=chooser.randrange(2**40))
    for entity in lists:
        made.add(
            entity,
            [application],
            owner=chooser.choice(users),
            name=f"the list {entity[1]}",
            readers=chooser.choice(teams),
            editors=chooser.choice(teams),
        )
    questions = []
    for _ in range(asks):
        if chooser.random() < 0.1:
            questions.append(Ask(chooser.choice(users), chooser.choice(("CreateList", "GetLists")), application))
        else:
            questions.append(Ask(chooser.choice(users), chooser.choice(ON_LISTS), chooser.choice(lists)))
    return Workload("tinytodo", POLICIES, SCHEMA, made.entities(), questions, FIELDS, MATCHER, RULES, REGO)

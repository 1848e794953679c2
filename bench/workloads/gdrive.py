"""Documents in folders, shared with people and with groups of them; what is shared of a folder holds below it."""

from __future__ import annotations

import random

from bench.workloads.base import Ask, Builder, Workload, some

ACTIONS = ("readDocument", "writeDocument", "changeOwner", "createDocument")

SCHEMA = """
entity Access in [Access];
entity Group in [Group, Access];
entity User in [Group, Access];
entity Folder = { owner: User, readers: Access, writers: Access };
entity Document = { owner: User, isPublic: Bool, readers: Access, writers: Access };
action readDocument, writeDocument, changeOwner appliesTo { principal: [User], resource: [Document] };
action createDocument appliesTo { principal: [User], resource: [Folder] };
"""

POLICIES = """
permit (principal is User, action == Action::"readDocument", resource is Document)
when { principal in resource.readers };

permit (principal is User, action == Action::"readDocument", resource is Document)
when { resource.isPublic };

permit (principal is User, action == Action::"writeDocument", resource is Document)
when { principal in resource.writers };

permit (principal is User, action in [Action::"readDocument", Action::"writeDocument", Action::"changeOwner"], resource)
when { resource.owner == principal };

permit (principal is User, action == Action::"createDocument", resource is Folder)
when { resource.owner == principal || principal in resource.writers };
"""

FIELDS = "act, kind, name"
MATCHER = """r.act == p.act && (p.kind == "within" && within(r.sub, r.obj, p.name) || \
p.kind == "is" && value(r.obj, p.name) == r.sub || p.kind == "flag" && value(r.obj, p.name) == True)"""

RULES: list[tuple[str, ...]] = [
    ("readDocument", "within", "readers"),
    ("readDocument", "flag", "isPublic"),
    ("writeDocument", "within", "writers"),
    *((action, "is", "owner") for action in ("readDocument", "writeDocument", "changeOwner", "createDocument")),
    ("createDocument", "within", "writers"),
]

REGO = """
package bench
import rego.v1

default allow := false
object := data.attributes[input.resource]
allow if { input.action == "readDocument"; data.above[input.principal][object.readers] }
allow if { input.action == "readDocument"; object.isPublic }
allow if { input.action == "writeDocument"; data.above[input.principal][object.writers] }
allow if { input.action in {"readDocument", "writeDocument", "changeOwner", "createDocument"}; \
object.owner == input.principal }
allow if { input.action == "createDocument"; data.above[input.principal][object.writers] }
"""


def gdrive(size: int, asks: int, seed: int = 1) -> Workload:
    """Make `size` users, groups, folders and documents each, and so many questions."""
    chooser = random.Random(seed)
    made = Builder()
    users = [("User", f"user{i}") for i in range(size)]
    groups = [("Group", f"group{i}") for i in range(size)]
    for index, group in enumerate(groups):
        made.add(group, some(chooser, groups[:index], 1))  # groups are in earlier ones: no cycles
    for user in users:
        made.add(user, some(chooser, groups, 3))
    folders = [("Folder", f"folder{i}") for i in range(size)]
    documents = [("Document", f"document{i}") for i in range(size)]
    inside = {folder: chooser.choice([*folders[:index], None]) for index, folder in enumerate(folders)}
    inside |= {document: chooser.choice(folders) for document in documents}
    for thing in (*folders, *documents):
        access = {name: ("Access", f"{thing[1]}#{name}") for name in ("readers", "writers")}
        for node in access.values():
            made.add(node)
        made.link(access["writers"], access["readers"])  # who may write may read
        above = inside[thing]
        for name, node in access.items():
            if above is not None:
                made.link(("Access", f"{above[1]}#{name}"), node)
            for holder in some(chooser, [*users, *groups], 2):
                made.link(holder, node)
        public = {"isPublic": chooser.random() < 0.1} if thing[0] == "Document" else {}
        made.add(thing, owner=chooser.choice(users), **access, **public)
    questions = []
    for _ in range(asks):
        action = chooser.choice(ACTIONS)
        resource = chooser.choice(folders if action == "createDocument" else documents)
        questions.append(Ask(chooser.choice(users), action, resource))
    return Workload("gdrive", POLICIES, SCHEMA, made.entities(), questions, FIELDS, MATCHER, RULES, REGO)

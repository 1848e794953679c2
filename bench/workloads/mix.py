"""The source's mix: 40 % by role (2–3 roles), 40 % by attributes (5–10 conditions), 20 % by relations (3–5 hops).

One set of policies and one store for all three; `rbac`, `abac` and `rebac` ask only one kind of question.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from bench.workloads.base import Ask, Builder, Uid, Workload, some

SCHEMA = """
entity Role;
entity Team in [Team];
entity User in [Role, Team] = {
  department: String, level: Long, suspended: Bool, region: String, verified: Bool, projects: Set<String>,
};
entity Report = { department: String };
entity Record = { department: String, sensitivity: Long, region: String, project: String, archived: Bool };
entity Folder in [Folder] = { owners: Team };
entity File in [Folder] = { folder: Folder };
action viewReport, editReport, purgeReport appliesTo { principal: [User], resource: [Report] };
action openRecord appliesTo {
  principal: [User], resource: [Record],
  context: { ip: ipaddr, mfa: Bool, hour: Long, device: String },
};
action openFile appliesTo { principal: [User], resource: [File] };
"""

POLICIES = """
permit (principal in Role::"viewer", action == Action::"viewReport", resource is Report);
permit (principal in Role::"editor", action in [Action::"viewReport", Action::"editReport"], resource is Report);
permit (principal in Role::"admin", action in [Action::"viewReport", Action::"editReport", Action::"purgeReport"],
  resource is Report);
forbid (principal in Role::"auditor", action in [Action::"editReport", Action::"purgeReport"], resource is Report);

permit (principal is User, action == Action::"openRecord", resource is Record)
when {
  principal.verified &&
  principal.department == resource.department &&
  principal.level >= resource.sensitivity &&
  principal.region == resource.region &&
  principal.projects.contains(resource.project) &&
  context.mfa &&
  context.ip.isInRange(ip("10.0.0.0/8")) &&
  context.hour >= 6 && context.hour < 22 &&
  context.device like "managed-*"
};
forbid (principal is User, action == Action::"openRecord", resource is Record)
when { principal.suspended || resource.archived };

permit (principal is User, action == Action::"openFile", resource is File)
when { principal in resource.folder.owners };
permit (principal in Team::"team0", action == Action::"openFile", resource in Folder::"folder0");
forbid (principal in Team::"team1", action == Action::"openFile", resource in Folder::"folder1");
"""

FIELDS = "act, kind, name, folder, eft"
MATCHER = """r.act == p.act && (p.kind == "role" && member(r.sub, p.name) || p.kind == "record" && \
value(r.sub, "verified") && value(r.sub, "department") == value(r.obj, "department") && \
value(r.sub, "level") >= value(r.obj, "sensitivity") && value(r.sub, "region") == value(r.obj, "region") && \
holds(value(r.sub, "projects"), value(r.obj, "project")) && value(r.ctx, "mfa") && \
inside(value(r.ctx, "ip"), "10.0.0.0/8") && value(r.ctx, "hour") >= 6 && value(r.ctx, "hour") < 22 && \
begins(value(r.ctx, "device"), "managed-") || p.kind == "unfit" && \
(value(r.sub, "suspended") || value(r.obj, "archived")) || \
p.kind == "folder" && owns(r.sub, r.obj) || p.kind == "both" && member(r.sub, p.name) && member(r.obj, p.folder))"""

RULES: list[tuple[str, ...]] = [
    ("viewReport", "role", "Role::viewer", "", "allow"),
    *((action, "role", "Role::editor", "", "allow") for action in ("viewReport", "editReport")),
    *((action, "role", "Role::admin", "", "allow") for action in ("viewReport", "editReport", "purgeReport")),
    *((action, "role", "Role::auditor", "", "deny") for action in ("editReport", "purgeReport")),
    ("openRecord", "record", "", "", "allow"),
    ("openRecord", "unfit", "", "", "deny"),
    ("openFile", "folder", "", "", "allow"),
    ("openFile", "both", "Team::team0", "Folder::folder0", "allow"),
    ("openFile", "both", "Team::team1", "Folder::folder1", "deny"),
]

REGO = """
package bench
import rego.v1

default allow := false
subject := data.attributes[input.principal]
object := data.attributes[input.resource]
above := data.above[input.principal]
roles := {
  "viewReport": ["Role::viewer", "Role::editor", "Role::admin"],
  "editReport": ["Role::editor", "Role::admin"],
  "purgeReport": ["Role::admin"],
}
permitted if { some role in roles[input.action]; above[role] }
forbidden if { input.action in {"editReport", "purgeReport"}; above["Role::auditor"] }
permitted if {
  input.action == "openRecord"
  subject.verified
  subject.department == object.department
  subject.level >= object.sensitivity
  subject.region == object.region
  object.project in subject.projects
  input.context.mfa
  startswith(input.context.ip, "10.")
  input.context.hour >= 6
  input.context.hour < 22
  startswith(input.context.device, "managed-")
}
forbidden if { input.action == "openRecord"; subject.suspended }
forbidden if { input.action == "openRecord"; object.archived }
permitted if { input.action == "openFile"; above[data.attributes[object.folder].owners] }
permitted if { input.action == "openFile"; above["Team::team0"]; data.above[input.resource]["Folder::folder0"] }
forbidden if { input.action == "openFile"; above["Team::team1"]; data.above[input.resource]["Folder::folder1"] }
allow if { permitted; not forbidden }
"""

DEPARTMENTS = ("sales", "support", "research", "finance")
REGIONS = ("eu", "us", "apac")
PROJECTS = tuple(f"project{i}" for i in range(12))


class _Site:
    """The entities, and one question of each kind."""

    def __init__(self, size: int, chooser: random.Random) -> None:
        self._chooser = chooser
        self.made = made = Builder()
        roles: list[Uid] = [made.add(("Role", name)) for name in ("viewer", "editor", "admin", "auditor")]
        teams: list[Uid] = []
        for index in range(max(5, size)):
            above = [teams[(index - 1) // 2]] if index else []  # a tree: chains of 3 to 5 at these sizes
            teams.append(made.add(("Team", f"team{index}"), above))
        self.users: list[Uid] = []
        for index in range(size):
            attributes = {
                "department": chooser.choices(DEPARTMENTS, (85, 5, 5, 5))[0],
                "level": chooser.randint(3, 9),
                "suspended": chooser.random() < 0.05,
                "region": chooser.choices(REGIONS, (90, 5, 5))[0],
                "verified": chooser.random() < 0.95,
                "projects": sorted(chooser.sample(PROJECTS, 10)),
            }
            parents = [*chooser.sample(roles, chooser.randint(2, 3)), *some(chooser, teams[len(teams) // 2 :], 2)]
            self.users.append(made.add(("User", f"user{index}"), parents, **attributes))
        self.reports = [made.add(("Report", f"report{i}"), department=chooser.choice(DEPARTMENTS)) for i in range(size)]
        self.records = [
            made.add(
                ("Record", f"record{i}"),
                department=chooser.choices(DEPARTMENTS, (85, 5, 5, 5))[0],
                sensitivity=chooser.randint(1, 5),
                region=chooser.choices(REGIONS, (90, 5, 5))[0],
                project=chooser.choice(PROJECTS),
                archived=chooser.random() < 0.05,
            )
            for i in range(size)
        ]
        folders: list[Uid] = []
        for index in range(max(5, size)):
            above = [folders[(index - 1) // 2]] if index else []
            folders.append(made.add(("Folder", f"folder{index}"), above, owners=chooser.choice(teams)))
        self.files = []
        for index in range(size):
            folder = chooser.choice(folders)
            self.files.append(made.add(("File", f"file{index}"), [folder], folder=folder))

    def by_role(self) -> Ask:
        action = self._chooser.choice(("viewReport", "editReport", "purgeReport"))
        return Ask(self._chooser.choice(self.users), action, self._chooser.choice(self.reports))

    def by_attributes(self) -> Ask:
        chooser = self._chooser
        address = f"10.{chooser.randrange(256)}.{chooser.randrange(256)}.{chooser.randrange(1, 255)}"
        context = {
            "ip": {"__extn": {"fn": "ip", "arg": address if chooser.random() < 0.9 else "192.0.2.7"}},
            "mfa": chooser.random() < 0.9,
            "hour": chooser.randrange(5, 23),
            "device": f"managed-{chooser.randrange(10_000)}" if chooser.random() < 0.9 else "own phone",
        }
        return Ask(chooser.choice(self.users), "openRecord", chooser.choice(self.records), context)

    def by_relations(self) -> Ask:
        return Ask(self._chooser.choice(self.users), "openFile", self._chooser.choice(self.files))


def _workload(name: str, size: int, asks: int, seed: int, choose: Callable[[_Site, int], Ask]) -> Workload:
    site = _Site(size, random.Random(seed))
    questions = [choose(site, index) for index in range(asks)]
    return Workload(name, POLICIES, SCHEMA, site.made.entities(), questions, FIELDS, MATCHER, RULES, REGO)


def rbac(size: int, asks: int, seed: int = 1) -> Workload:
    """Ask by role only."""
    return _workload("source mix: roles", size, asks, seed, lambda site, _: site.by_role())


def abac(size: int, asks: int, seed: int = 1) -> Workload:
    """Ask by attributes only."""
    return _workload("source mix: attributes", size, asks, seed, lambda site, _: site.by_attributes())


def rebac(size: int, asks: int, seed: int = 1) -> Workload:
    """Ask by relations only."""
    return _workload("source mix: relations", size, asks, seed, lambda site, _: site.by_relations())


def mix(size: int, asks: int, seed: int = 1) -> Workload:
    """Ask by roles, attributes and relations as 2 : 2 : 1."""

    def choose(site: _Site, index: int) -> Ask:
        return (site.by_role, site.by_attributes, site.by_role, site.by_attributes, site.by_relations)[index % 5]()

    return _workload("source mix", size, asks, seed, choose)

"""The schema that the validator's tests share, and the two ways to ask for a verdict."""

from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema
from gateway.policy.validator import Mode, Report, validate

SCHEMA = """
entity Group in [Group];
entity User in [Group] {
  age: Long, name: String, admin: Bool, manager?: User, home: {city: String, zip?: String},
  "nick names": Set<String>, joined: datetime, worked: duration, address: ipaddr, score: decimal, friends: Set<User>,
} tags String;
entity Robot in [Group] { age: Long, maker: String, name?: String };
entity Folder in [Folder] { owner: User };
entity Doc in [Folder] { owner: User, draft?: Bool, level: Level };
entity Level enum ["low", "high"];
action readers;
action read in [readers] appliesTo { principal: [User, Robot], resource: [Doc, Folder], context: { ip: ipaddr } };
action write in [readers] appliesTo { principal: [User], resource: [Doc], context: { ip: ipaddr, why?: String } };
namespace Other {
  action audit in [Action::"readers"] appliesTo { principal: [User], resource: [Doc] };
}
"""
PARSED = Schema.parse(SCHEMA)


def report_of(text: str, mode: Mode = "strict") -> Report:
    """Validate a text of policies."""
    return validate(PolicySet.parse(text, file="a.cedar"), PARSED, mode)


def report_on(condition: str, mode: Mode = "strict") -> Report:
    """Validate a condition for requests of users who write documents."""
    scope = 'principal is User, action == Action::"write", resource is Doc'
    return report_of(f"permit({scope}) when {{ {condition} }};", mode)


def codes(report: Report) -> list[str]:
    """Give the codes of errors."""
    return [fault.code for fault in report.errors]

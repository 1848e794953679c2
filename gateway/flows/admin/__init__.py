"""Administration: who may do what to users, sessions, clients and grants, and the doing, every act of it audited."""

from gateway.flows.admin.acts import AdminActs, Granted
from gateway.flows.admin.parties import Administrator, RoleAssignments, RoleOf
from gateway.flows.admin.refusals import AdminRefused, NothingThere, StepUpNeeded
from gateway.flows.admin.rules import ACTIONS, CHANGES, ROLES, AdminRules

__all__ = [
    "ACTIONS",
    "CHANGES",
    "ROLES",
    "AdminActs",
    "AdminRefused",
    "AdminRules",
    "Administrator",
    "Granted",
    "NothingThere",
    "RoleAssignments",
    "RoleOf",
    "StepUpNeeded",
]

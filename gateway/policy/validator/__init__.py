"""Checks that policies fit a schema, as Cedar's validator does, in strict and in permissive mode."""

from gateway.policy.validator.report import Report
from gateway.policy.validator.validator import Mode, Validator, validate

__all__ = ["Mode", "Report", "Validator", "validate"]

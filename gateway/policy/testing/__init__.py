"""Tests of policies as data: what `portcullis policy test` reads and runs."""

from gateway.policy.testing.cases import Case, CaseFile, CaseFileError, load_cases
from gateway.policy.testing.running import Outcome, PolicyCoverage, Run, run_cases

__all__ = ["Case", "CaseFile", "CaseFileError", "Outcome", "PolicyCoverage", "Run", "load_cases", "run_cases"]

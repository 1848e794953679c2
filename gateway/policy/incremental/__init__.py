"""Partial evaluation: what is left once principal and action are known, kept, and finished for each resource."""

from gateway.policy.incremental.evaluator import IncrementalEvaluator, Residual

__all__ = ["IncrementalEvaluator", "Residual"]

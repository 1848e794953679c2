"""What one request may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScimLimits:
    """Every bound by its name."""

    body_bytes: int = 1 << 20
    bulk_operations: int = 100
    page: int = 200  # resources of one answer
    filter_bytes: int = 2048
    filter_terms: int = 50
    filter_depth: int = 10
    scan: int = 5000  # resources looked through where an index cannot answer
    bulk_s: float = 20.0  # then the rest of a bulk request is answered with 503

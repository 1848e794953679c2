"""Pools for tests that open many stores: those of the product would be more connections than one server takes."""

from __future__ import annotations

from gateway.stores.pools import PoolLimits, Pools

_FEW = PoolLimits(1, 8, 60.0, connect_timeout_s=2.0, call_timeout_s=2.0, statements_max=100)
SMALL = Pools(_FEW, _FEW, _FEW)

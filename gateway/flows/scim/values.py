"""Who asks, what is asked beside the payload, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.flows.trail import NOBODY, Caller


@dataclass(frozen=True, slots=True)
class ScimCaller:
    """Who provisions: a client of the config, or whom a token names."""

    id: str
    tenant: str
    where: Caller = NOBODY
    is_reader: bool = False  # may only look


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered to one operation."""

    status: int
    body: dict[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for beside the payload: the query's parameters, and entity tags."""

    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    if_match: str = ""
    if_none_match: str = ""


PLAINLY: Final = Asked()

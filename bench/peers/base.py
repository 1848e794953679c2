"""What each peer must tell, so that all are measured alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from bench.material import Issuer

Door = Literal["forward", "proxy"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a peer is configured with."""

    folder: Path  # its own, for what it writes
    port: int
    door: Door
    issuer: Issuer
    upstream_port: int  # of the proxy door's upstream
    tokens: Sequence[bytes] = ()  # all that will be sent and are good: policies may know their subjects


class Peer(ABC):
    """One server in one configuration. `checks` and `skips` go below the table: the comparison must be readable."""

    name: ClassVar[str]
    doors: ClassVar[tuple[Door, ...]] = ("forward",)
    authenticates: ClassVar[bool] = True  # False: a floor, which answers everybody
    checks: ClassVar[str] = "signature, alg, iss, aud, exp"
    skips: ClassVar[str] = ""
    forward_path: ClassVar[str] = "/auth"
    environment: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def version(self) -> str:
        """Give the version of what would run, or `?`."""

    @abstractmethod
    def missing(self) -> str | None:
        """Say what is missing to run it here, or None."""

    @abstractmethod
    def command(self, setup: Setup) -> Sequence[str]:
        """Write the configuration into `setup.folder` and give the command that serves it, in the foreground."""

    def path(self, door: Door) -> str:
        return self.forward_path if door == "forward" else "/api/orders/4711"

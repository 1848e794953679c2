"""How unusual a login is: a number that is the sum of its parts, each of which says why. No chance, no learning.

It never lets anybody in: it can only ask for more, or refuse. What cannot be known (no map of addresses, no earlier
log-in) counts nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

RiskName = Literal["new_browser", "failures", "velocity", "impossible_travel"]

NEW_BROWSER: Final = 15
FAILURE: Final = 4  # for each failed attempt at the account of late
FAILURES_MAX: Final = 30
VELOCITY: Final = 20
VELOCITY_LOGINS: Final = 5  # within VELOCITY_S
VELOCITY_S: Final = 600.0
TRAVEL: Final = 50
KM_PER_HOUR_MAX: Final = 1000.0  # an airliner's
KM_MIN: Final = 300.0  # maps of addresses err by so much
_EARTH_KM: Final = 6371.0
_COUNTRY: Final = re.compile("[A-Z]{2}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is, in degrees. `country`: ISO 3166-1, two letters, "" where that is not known."""

    latitude: float
    longitude: float
    country: str = field(default="", compare=False)

    def km_to(self, other: Place) -> float:
        """Give the distance along the surface."""
        one, two = math.radians(self.latitude), math.radians(other.latitude)
        half = math.sin((two - one) / 2) ** 2
        half += math.cos(one) * math.cos(two) * math.sin(math.radians(other.longitude - self.longitude) / 2) ** 2
        return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


@dataclass(frozen=True, slots=True)
class Sighting:
    """A place at which a user was, and when (Unix seconds). `network`: what tells networks apart, where it is known."""

    place: Place
    at_s: float
    network: bytes = b""


@dataclass(frozen=True, slots=True)
class RiskPart:
    """One reason, what it counts, and what was seen."""

    name: RiskName
    points: int
    detail: str


@dataclass(frozen=True, slots=True)
class Risk:
    """How unusual a login is, and why."""

    parts: tuple[RiskPart, ...] = ()

    @property
    def points(self) -> int:
        return sum(part.points for part in self.parts)

    def __str__(self) -> str:
        return ", ".join(f"{part.name} {part.points} ({part.detail})" for part in self.parts) or "nothing unusual"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSigns:
    """What is seen of a login, after its first factor was verified."""

    now_s: float
    known_browser: bool
    failures: int  # at the account, before this attempt
    recent_logins_s: Sequence[float] = ()  # when the user logged in of late
    place: Place | None = None
    network: bytes = b""  # of the address
    sightings: Sequence[Sighting] = field(default=())


def assess(signs: LoginSigns) -> Risk:
    """Add up what is unusual."""
    parts: list[RiskPart] = []
    if not signs.known_browser:
        parts.append(RiskPart("new_browser", NEW_BROWSER, "the user did not log in from this browser before"))
    if signs.failures:
        points = min(FAILURES_MAX, FAILURE * signs.failures)
        parts.append(RiskPart("failures", points, f"{signs.failures} failed attempts before it"))
    recent = sum(1 for at_s in signs.recent_logins_s if signs.now_s - at_s < VELOCITY_S)
    if recent >= VELOCITY_LOGINS:
        parts.append(RiskPart("velocity", VELOCITY, f"{recent} logins within {VELOCITY_S:.0f} s"))
    parts += _travel(signs)
    return Risk(tuple(parts))


def _travel(signs: LoginSigns) -> list[RiskPart]:
    if signs.place is None or not signs.sightings:
        return []
    last = max(signs.sightings, key=lambda each: (each.at_s, each.network))
    if signs.network and last.network == signs.network:
        return []  # then the map moved, and not the user
    km = last.place.km_to(signs.place)
    hours = max(1.0, signs.now_s - last.at_s) / 3600
    if km < KM_MIN or km / hours <= KM_PER_HOUR_MAX:
        return []
    countries = (last.place.country, signs.place.country)
    between = f", from {countries[0]} to {countries[1]}" if all(countries) and countries[0] != countries[1] else ""
    return [RiskPart("impossible_travel", TRAVEL, f"{km:.0f} km in {hours:.1f} h{between}")]


class AddressMap(Protocol):
    """Knows where addresses are."""

    def find(self, address: str) -> Place | None:
        """Give the place of an address, None where it is not known."""


class NoAddressMap:
    """Stands where no map is configured."""

    def find(self, address: str) -> Place | None:
        return None


class MaxMindMap:
    """A map of addresses in MaxMind's format (`GeoLite2-City.mmdb`); it is mapped, and never fetched."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that is none."""
        import maxminddb

        try:
            self._reader: Any = maxminddb.open_database(str(path), maxminddb.MODE_MMAP)
        except (OSError, TypeError, maxminddb.InvalidDatabaseError) as error:  # what describes it may be missing
            raise ValueError(f"`{path}` is no map of addresses: {error}") from error

    def find(self, address: str) -> Place | None:
        try:
            row = self._reader.get(address)
        except ValueError:  # no address
            return None
        location = row.get("location") if isinstance(row, dict) else None
        if not isinstance(location, dict) or "latitude" not in location or "longitude" not in location:
            return None
        country = row.get("country")
        code = country.get("iso_code") if isinstance(country, dict) else None
        return Place(
            float(location["latitude"]),
            float(location["longitude"]),
            code if isinstance(code, str) and _COUNTRY.fullmatch(code) else "",
        )

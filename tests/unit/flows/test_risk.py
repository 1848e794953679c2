"""How unusual a login is: each part, and that the sum is of its parts."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.flows.risk import LoginSigns, MaxMindMap, Place, Risk, Sighting, assess

BERLIN, PARIS, SYDNEY = Place(52.5, 13.4), Place(48.9, 2.4), Place(-33.9, 151.2)
NOW_S = 1_700_000_000.0


def signs(**changes: object) -> LoginSigns:
    usual: dict[str, object] = {"now_s": NOW_S, "known_browser": True, "failures": 0}
    return LoginSigns(**{**usual, **changes})  # type: ignore[arg-type]


def names(risk: Risk) -> list[str]:
    return [part.name for part in risk.parts]


def test_a_usual_login_counts_nothing_and_says_so() -> None:
    risk = assess(signs(place=BERLIN, sightings=[Sighting(BERLIN, NOW_S - 60)]))
    assert (risk.points, str(risk)) == (0, "nothing unusual")


def test_the_sum_is_that_of_the_parts_and_each_says_why() -> None:
    risk = assess(
        signs(
            known_browser=False,
            failures=3,
            recent_logins_s=[NOW_S - 10] * 5,
            place=SYDNEY,
            sightings=[Sighting(BERLIN, NOW_S - 3600)],
        )
    )
    assert names(risk) == ["new_browser", "failures", "velocity", "impossible_travel"]
    assert risk.points == sum(part.points for part in risk.parts) == 15 + 12 + 20 + 50
    assert "3 failed attempts" in str(risk)


def test_failures_count_up_to_a_bound() -> None:
    assert assess(signs(failures=1)).points == 4
    assert assess(signs(failures=1000)).points == 30


def test_logins_count_only_while_they_are_recent() -> None:
    assert assess(signs(recent_logins_s=[NOW_S - 601] * 50)).points == 0
    assert assess(signs(recent_logins_s=[NOW_S - 599] * 5)).points == 20


@pytest.mark.parametrize(
    ("place", "since_s", "is_odd"),
    [
        (SYDNEY, 3600, True),
        (SYDNEY, 20 * 3600, False),  # 16,000 km: a day's flight
        (PARIS, 3600, False),  # 880 km
        (PARIS, 600, True),
        (Place(52.6, 13.5), 1, False),  # a map errs by more
    ],
)
def test_a_journey_is_odd_when_nobody_travels_so_fast(place: Place, since_s: float, is_odd: bool) -> None:
    risk = assess(signs(place=place, sightings=[Sighting(BERLIN, NOW_S - since_s)]))
    assert (names(risk) == ["impossible_travel"]) is is_odd


def test_the_last_place_is_what_a_journey_begins_at() -> None:
    seen = [Sighting(SYDNEY, NOW_S - 60), Sighting(BERLIN, NOW_S - 7200)]
    assert names(assess(signs(place=SYDNEY, sightings=seen))) == []
    assert names(assess(signs(place=BERLIN, sightings=seen))) == ["impossible_travel"]


def test_who_is_in_the_same_network_did_not_travel_though_the_map_says_so() -> None:
    seen = [Sighting(SYDNEY, NOW_S - 60, b"one")]
    assert names(assess(signs(place=BERLIN, sightings=seen, network=b"one"))) == []
    assert names(assess(signs(place=BERLIN, sightings=seen, network=b"other"))) == ["impossible_travel"]
    assert names(assess(signs(place=BERLIN, sightings=[Sighting(SYDNEY, NOW_S - 60)]))) == ["impossible_travel"]
    later = [*seen, Sighting(PARIS, NOW_S - 30, b"other")]
    assert names(assess(signs(place=BERLIN, sightings=later, network=b"one"))) == ["impossible_travel"]


@pytest.mark.parametrize(
    ("countries", "said"), [(("AU", "DE"), ", from AU to DE)"), (("DE", "DE"), " h)"), (("", "DE"), " h)")]
)
def test_a_journey_says_between_which_countries(countries: tuple[str, str], said: str) -> None:
    there, here = replace(SYDNEY, country=countries[0]), replace(BERLIN, country=countries[1])
    risk = assess(signs(place=here, sightings=[Sighting(there, NOW_S - 60)]))
    assert str(risk).endswith(said)


def test_what_is_not_known_counts_nothing() -> None:
    assert assess(signs(place=None, sightings=[Sighting(BERLIN, NOW_S - 60)])).points == 0
    assert assess(signs(place=SYDNEY)).points == 0


def test_distances_are_those_of_the_globe() -> None:
    assert BERLIN.km_to(PARIS) == pytest.approx(878, abs=15)
    assert BERLIN.km_to(SYDNEY) == pytest.approx(16_090, abs=60)
    assert BERLIN.km_to(BERLIN) == 0
    assert Place(0, 179.9).km_to(Place(0, -179.9)) == pytest.approx(22, abs=1)


def test_a_file_that_is_no_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map").write_bytes(b"no map")
    for name in ("map", "none"):
        with pytest.raises(ValueError, match="is no map of addresses"):
            MaxMindMap(tmp_path / name)


# --- a map of addresses


def map_of(folder: Path, place: Place) -> Path:
    """Write a map in MaxMind's format (version 2.0) that knows 192.0.2.0/24, and nothing else."""
    network = ipaddress.ip_network("192.0.2.0/24")
    bits = f"{int(network.network_address):032b}"[: network.prefixlen]
    count = len(bits)
    tree = b""
    for number, bit in enumerate(bits):
        onward = number + 1 if number + 1 < count else count + 16  # then the data begin
        left, right = (onward, count) if bit == "0" else (count, onward)  # `count` itself: nothing is known
        tree += left.to_bytes(3, "big") + right.to_bytes(3, "big")
    entry: dict[str, object] = {"location": {"latitude": place.latitude, "longitude": place.longitude}}
    if place.country:
        entry["country"] = {"iso_code": place.country}
    about: dict[str, object] = {
        "node_count": count,
        "record_size": 24,
        "ip_version": 4,
        "binary_format_major_version": 2,
    }
    about |= {"binary_format_minor_version": 0, "build_epoch": 1, "database_type": "Test"}
    about |= {"description": {}, "languages": []}
    path = folder / "map.mmdb"
    path.write_bytes(tree + bytes(16) + mmdb(entry) + b"\xab\xcd\xefMaxMind.com" + mmdb(about))
    return path


def mmdb(value: object) -> bytes:
    """Spell a value as such maps do."""
    if isinstance(value, dict):
        return bytes([7 << 5 | len(value)]) + b"".join(mmdb(name) + mmdb(each) for name, each in value.items())
    if isinstance(value, str):
        return bytes([2 << 5 | len(value)]) + value.encode()
    if isinstance(value, float):
        return bytes([3 << 5 | 8]) + struct.pack(">d", value)
    if isinstance(value, list):
        return bytes([len(value), 11 - 7]) + b"".join(map(mmdb, value))
    assert isinstance(value, int)
    return bytes([6 << 5 | 4]) + value.to_bytes(4, "big")


def test_a_map_knows_where_addresses_are(tmp_path: Path) -> None:
    known = MaxMindMap(map_of(tmp_path, BERLIN))
    assert known.find("192.0.2.7") == BERLIN
    assert (known.find("192.0.2.7") or SYDNEY).country == ""
    assert known.find("192.0.3.7") is None
    assert known.find("2001:db8::1") is None
    assert known.find("not an address") is None
    assert known.find("") is None


@pytest.mark.parametrize(("said", "country"), [("DE", "DE"), ("de", ""), ("Germany", "")])
def test_a_map_says_the_country_by_its_two_letters(tmp_path: Path, said: str, country: str) -> None:
    found = MaxMindMap(map_of(tmp_path, replace(BERLIN, country=said))).find("192.0.2.7")
    assert found is not None and found.country == country

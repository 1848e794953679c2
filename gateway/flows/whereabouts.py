"""Where users logged in of late: kept with them, so that a journey shows also when all their sessions are over.

Of each of the last few log-ins there lies: when it was, the place to some 10 km and the country where a map of
addresses knows them, and a keyed hash of the address's network, other for each user. The address itself is not kept.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from typing import Final

from gateway.flows.risk import AddressMap, Place, Sighting
from gateway.stores.directory import Directory, PastLogin

_DECIMALS: Final = 1  # of degrees: some 10 km, enough to tell a journey
_HASH_BYTES: Final = 16
_NETWORK_BITS: Final = {
    4: 24,
    6: 48,
}  # of an address: some hundred customers of one provider, or one site


class Whereabouts:
    """Notes log-ins of users, and says where they were. Methods that ask raise StoreUnavailable."""

    def __init__(self, directory: Directory, addresses: AddressMap, key: bytes, *, keep: int) -> None:
        """`key`: of the hashes, the same for all gateways. `keep`: log-ins of a user; 0: none is noted, or read."""
        self._directory = directory
        self._addresses = addresses
        self._key = key
        self._keep = keep

    def find(self, address: str) -> Place | None:
        """Give the place of an address, as coarse as it is kept; None where it is not known."""
        found = self._addresses.find(address)
        if found is None:
            return None
        return Place(round(found.latitude, _DECIMALS), round(found.longitude, _DECIMALS), found.country)

    def network(self, user_id: str, address: str) -> bytes:
        """Give what tells the network of an address from others of the same user, b"" for what is no address."""
        try:
            read = ipaddress.ip_address(address)
        except ValueError:
            return b""
        if isinstance(read, ipaddress.IPv6Address) and read.ipv4_mapped is not None:
            read = read.ipv4_mapped
        network = ipaddress.ip_network((read.packed, _NETWORK_BITS[read.version]), strict=False)
        return hmac.digest(self._key, f"network\0{user_id}\0{network}".encode(), "sha256")[:_HASH_BYTES]

    async def of(self, user_id: str, before_s: float) -> Sequence[PastLogin]:
        """Give a user's last log-ins before a moment, the last one first."""
        if not self._keep:
            return ()
        return [each for each in await self._directory.logins_of(user_id) if each.at_s < before_s]

    async def note(self, user_id: str, address: str, at_s: float) -> None:
        """Note a log-in; the same one is noted once."""
        if not self._keep:
            return
        place = self.find(address)
        login = PastLogin(
            user_id=user_id,
            at_s=at_s,
            network=self.network(user_id, address),
            country="" if place is None else place.country,
            latitude=None if place is None else place.latitude,
            longitude=None if place is None else place.longitude,
        )
        await self._directory.note_login(login, self._keep)


def sightings_in(logins: Sequence[PastLogin]) -> list[Sighting]:
    """Give where and when log-ins were, as far as that is known."""
    return [
        Sighting(Place(each.latitude, each.longitude, each.country), each.at_s, each.network)
        for each in logins
        if each.latitude is not None and each.longitude is not None
    ]

"""Which peers' forwarding headers count."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


class TrustedProxies:
    """Tell whether an address lies in one of the configured networks. Callable: address text -> bool."""

    __slots__ = ("_networks",)

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(network, strict=False) for network in networks)

    def __call__(self, address: str) -> bool:
        """Unparsable addresses are not trusted; IPv4 in IPv6 (`::ffff:10.0.0.1`) counts as IPv4."""
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._networks)

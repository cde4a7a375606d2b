"""What a request tells: its key, and where it comes from."""

from __future__ import annotations

import ipaddress
import re
from typing import Callable, List, Optional, Sequence, Union

from . import _errors

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

#: The lines of a header, by its name in lower case.
HeaderLines = Callable[[str], Sequence[str]]

#: The longest text that is looked at as a key.
MAX_KEY_LENGTH = 512

_SPACE = " \t\r\n\v\f\x85\xa0"


def bare_key(text: str) -> str:
    """Returns a key without the scheme of its URI form (RFC 8959)."""
    return text[len("secret-token:"):] if text[:len("secret-token:")].lower() == "secret-token:" else text


def key_of(names: Sequence[str], lines: HeaderLines) -> str:
    """Returns the one key that the named headers hold, or raises what the holder is told."""
    key = ""
    for name in names:
        for line in lines(name.lower()):
            text = line.strip(_SPACE)
            if name.lower() == "authorization" and text[:7].lower() == "bearer ":
                text = text[7:].strip(_SPACE)
            text = bare_key(text)
            if text in ("", key):
                continue
            if key:
                raise _errors.conflicting()
            key = text
    if not key:
        raise _errors.missing()
    if len(key) > MAX_KEY_LENGTH:
        raise _errors.invalid()
    return key


def parse_address(text: str) -> Optional[Address]:
    """Returns the address that text is, without a zone; None for none."""
    if len(text) > 45 or "%" in text or re.search(r"(^|[.:])0[0-9]+\.|\.0[0-9]", text):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return _unmapped(address)


def _unmapped(address: Address) -> Address:
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def parse_networks(texts: Sequence[str]) -> List[Network]:
    """Returns the ranges that texts are."""
    if isinstance(texts, str):
        raise TypeError("trusted_proxies must be a list of addresses and ranges")
    networks = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise ValueError(f"trusted_proxies: {text[:64]!r} must be an address or a range such as 10.0.0.0/8") from None
    return networks


def _forwarded(entry: str) -> Optional[Address]:
    plain = parse_address(entry)
    if plain:
        return plain
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+)):([0-9]{1,5})", entry, re.ASCII)
    if not match or int(match[3]) > 65535:
        return None
    host = match[1] or match[2]
    return parse_address(host) if (match[1] is not None) == (":" in host) else None


def client_address(peer: Optional[str], forwarded_for: Sequence[str], trusted: Sequence[Network]) -> Optional[str]:
    """Returns the address of the client that a request comes from.

    That is peer, the other end of the connection, or, where that is a trusted proxy, the
    right-most entry of X-Forwarded-For that is not one. Entries further left are what the
    client itself may have written. One that does not parse where it is needed makes the
    address unknown, which is None and which every ip_allow_list refuses.
    """
    address = parse_address(peer.split("%")[0]) if peer else None
    if address and any(address in network for network in trusted):
        entries = ",".join(forwarded_for).split(",")
        for entry in reversed(entries):
            text = entry.strip(" \t")
            if not text:
                continue
            address = _forwarded(text)
            if not address or not any(address in network for network in trusted):
                break
    return str(address) if address else None

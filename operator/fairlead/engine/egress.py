"""Where requests may go: which addresses are public, and which private ones somebody allowed.

Used twice, so that nothing slips between: before a call's intent for what is written in the URL (`check_url`), and by
the dialer for what a name resolves to (`refusal`). What is no call is held against the rules of Policies here
(`check_rules`).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache

from yarl import URL

from fairlead.api.model import Model
from fairlead.api.tool import Tool
from fairlead.engine.seams import Resources
from fairlead.errors import EgressDenied
from fairlead.policy.places import closed_to_all

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = [
    ipaddress.ip_network(network)
    for network in (
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.0/24",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
]
"""Where clouds tell their machines' secrets: Azure at a public address, Oracle at one that some versions of Python hold
for public. Listed whatever those say of the others."""


def host_port(url: URL) -> str:
    """Return `host:port` as allow-lists write it: lower case, IPv6 in brackets, the scheme's port if none is given."""
    host = url.raw_host or ""
    return f"[{host}]:{url.port}" if ":" in host else f"{host}:{url.port}"


def declared_host(target: Tool | Model | None) -> str:
    """Return `host:port` that a Tool or Model names; "" if it names none, because Fairlead runs its server."""
    url = None
    if isinstance(target, Tool):
        url = target.spec.mcp.url
    elif isinstance(target, Model) and target.spec.endpoint is not None:
        url = target.spec.endpoint.url
    return host_port(URL(url)) if url else ""


def check_rules(resources: Resources, target: Tool | Model) -> None:
    """Let nobody ask a server that no run of the namespace may call, not even whether it is there.

    Raises:
        EgressDenied: `rules.egress` keeps everybody from it, or nobody knows yet.
    """
    host = declared_host(target)
    if host and not resources.policies_known:
        raise EgressDenied("not asked: the operator has not said yet which ClusterPolicies bind this namespace")
    breach = closed_to_all(host, resources.policies.values())
    if breach is not None:
        raise EgressDenied(f"not asked: {breach}")


def check_url(text: str, *, own: bool = False, allowed_private: Iterable[str] = ()) -> tuple[URL, bool]:
    """Return the parsed URL, and whether its address may be private: as our own server's, or because it is listed.

    Parsed by yarl, as the HTTP client does, so that no second opinion about the host exists. No name is resolved.

    Raises:
        EgressDenied: not http or https, credentials in the URL, or a literal address that is not public.
    """
    return _checked(text, own, frozenset(allowed_private))


@lru_cache(maxsize=1024)
def _checked(text: str, own: bool, allowed_private: frozenset[str]) -> tuple[URL, bool]:
    try:
        url = URL(text)
        host = url.raw_host
        port = url.port
        (host or "").encode("idna")  # as those do who resolve it
    except ValueError:
        raise EgressDenied("not a URL, or its host has a label that is empty or longer than 63 characters") from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise EgressDenied("only http and https URLs with a host can be called")
    if url.raw_user is not None or url.raw_password is not None:
        raise EgressDenied("a URL must not hold credentials")
    private = own or host_port(url) in {entry.lower() for entry in allowed_private}
    address = literal(host)
    if address is not None and not private and (why := refusal(address)):
        raise EgressDenied(f"{host_port(url)} is {why}")
    return url, private


def literal(host: str) -> Address | None:
    """Return the address that a host spells out, also in the old ways (`127.1`, `0x7f.1`, `2130706433`)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def refusal(address: Address) -> str:
    """Return why an address is not a public one, empty if it is.

    IPv6 addresses that carry an IPv4 address inside are judged by it; IPv4-mapped ones are never needed: refused.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return "an IPv4-mapped address"
        if (inner := _embedded(address)) is not None:
            return refusal(inner)
    if any(address in network for network in _METADATA):
        return "an address at which clouds tell their machines' secrets"
    for kind in ("loopback", "link_local", "multicast", "unspecified", "private", "reserved"):
        if getattr(address, f"is_{kind}"):
            return f"a {kind.replace('_', '-')} address"
    if not address.is_global or (isinstance(address, ipaddress.IPv6Address) and address.is_site_local):
        return "not a public address"
    return ""


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    return address.teredo[1] if address.teredo is not None else None

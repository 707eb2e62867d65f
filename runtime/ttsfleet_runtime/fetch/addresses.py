"""Where a fetch may connect to, and through which proxy. Pure but for `resolve`.

Private networks are admitted, since mirrors and stores live there. Never admitted: this machine, link-local addresses
and what clouds answer their metadata and credentials on. Behind a proxy the names are the proxy's to resolve: there
only addresses and names as written can be judged.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from ttsfleet_runtime.fetch.failures import Failure, FetchError

_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fd00:ec2::/32", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32")
)
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Proxies:
    """The proxies of the environment; "" = none."""

    http: str = ""
    https: str = ""
    bypass: tuple[str, ...] = ()

    def of(self, url: httpx.URL) -> str:
        """The proxy for `url`, "" for a direct connection."""
        proxy = self.https if url.scheme == "https" else self.http
        return "" if not proxy or any(_matches(rule, url) for rule in self.bypass) else proxy


def read_proxies(environment: Mapping[str, str]) -> Proxies:
    def value(name: str) -> str:
        return environment.get(name.lower()) or environment.get(name) or ""

    return Proxies(
        http=_proxy_url(value("HTTP_PROXY") or value("ALL_PROXY")),
        https=_proxy_url(value("HTTPS_PROXY") or value("ALL_PROXY")),
        bypass=tuple(rule.strip().lower() for rule in value("NO_PROXY").split(",") if rule.strip()),
    )


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host by the system's resolver, which also reads forms like 2130706433."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchError(
            Failure.UNREACHABLE, f"the host {host!r} cannot be resolved ({error.strerror})", is_transient=True
        ) from error
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def is_loopback(address: str) -> bool:
    return any(ip.is_loopback for ip in _forms(address))


def is_refused(address: str) -> bool:
    """Whether no fetch may connect to the address, also when an IPv4 one is wrapped into IPv6."""
    forms = _forms(address)
    return not forms or any(
        ip.is_loopback
        or ip.is_link_local
        or ip.is_multicast
        or ip.is_unspecified
        or any(ip in network for network in _METADATA if network.version == ip.version)
        for ip in forms
    )


def is_refused_name(host: str) -> bool:
    """The same for a host as it is written: a name that can only mean such an address, or the address itself."""
    name = host.rstrip(".").lower()
    if name in _METADATA_NAMES or name == "localhost" or name.endswith(".localhost"):
        return True
    return bool(_forms(name)) and is_refused(name)


def _forms(address: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The address, and the IPv4 one within it; empty for what is no address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return []
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    embedded = ip.ipv4_mapped or ip.sixtofour
    if embedded is None and ip in _NAT64:
        embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return [ip] if embedded is None else [ip, embedded]


def _proxy_url(text: str) -> str:
    return text if not text or "://" in text else f"http://{text}"


def _matches(rule: str, url: httpx.URL) -> bool:
    """A rule of NO_PROXY: `*`, a name with its subdomains, an address, a range, each with or without a port."""
    if rule == "*":
        return True
    host = url.host.lower()
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        pass
    name, colon, port = rule.rpartition(":")
    if colon and port.isdecimal() and not name.endswith(":"):
        if int(port) != (url.port or (443 if url.scheme == "https" else 80)):
            return False
        rule = name
    suffix = rule.strip("[]").removeprefix("*").lstrip(".")
    return host == suffix or host.endswith(f".{suffix}")

"""The guard of downloads: which addresses may be fetched is decided at the socket, after the name was resolved.

    URL ──► scheme http, https? ──► host resolved ──► any address forbidden? ──► connected to exactly that address
     ▲                                                                              │
     └───────────────────────── redirect: the same again ◄──────────────────────────┘

Forbidden are link-local addresses and the metadata services of clouds, which give credentials to every program inside,
in every spelling (``169.254.169.254``, ``0xA9FEA9FE``, ``[::ffff:a9fe:a9fe]``, a name that resolves to it); and
redirects to this machine or a private network, if the user's address is a public one. A name that resolves differently
the second time gains nothing: the guard connects to the very address that it checked.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import unquote, urljoin
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, HTTPHeaderDict, PoolManager, ProxyManager, make_headers
from urllib3.util import Url, parse_url

from headrace.errors import ConfigurationError

__all__ = ["Doors", "forbidden"]

MOST_REDIRECTS = 10

Address = IPv4Address | IPv6Address
# metadata services outside the link-local ranges: AWS over IPv6, Alibaba, Azure, Oracle
_METADATA = {ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")}
_METADATA_NAMES = {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
_NAT64 = ip_network("64:ff9b::/96")
_HINT = "it gives credentials to every program inside the cloud; give the address of a feed"


def forbidden(address: Address, *, public_origin: bool = False) -> str | None:
    """The reason why `address` may not be connected to, ``None`` if it may. `public_origin` says that a redirect from a
    public address leads there.
    """
    meant = _meant(address)
    if meant in _METADATA:
        return "it is a cloud's metadata service"
    if meant.is_link_local:
        return "it is a link-local address"
    if meant.is_multicast or meant.is_unspecified:
        return "it is not the address of a server"
    if public_origin and not meant.is_global:
        return "a public address must not redirect into a private network"
    return None


def _address_of(place: Any) -> Address:
    return ip_address(str(place[0]).partition("%")[0])


def _meant(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class Doors:
    """The connections of one download, each checked before it is made."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._public = False

    def get(self, url: str, headers: Mapping[str, str], secrets: Mapping[str, str], timeout: float) -> BaseHTTPResponse:
        """GET `url` and return the answer, with its body unread. Redirects are followed to http and https alone, and
        never from https to http. `secrets` are headers that are sent to no other host.

        Raises `ConfigurationError` for a forbidden address, `ValueError` and urllib3's errors.
        """
        for _ in range(MOST_REDIRECTS + 1):
            here = parse_url(url)
            self.require_name(here.host or "")
            sent = HTTPHeaderDict(headers)
            sent.update(secrets)  # in whatever case their names are
            response = self._ask(here, sent, timeout)
            location = response.get_redirect_location()
            if not location:
                return response
            response.close()
            url = urljoin(url, location)
            there = parse_url(url)
            if there.scheme not in ("http", "https"):
                raise self.refusal(f"it redirects to {there.scheme}:")
            if (here.scheme, there.scheme) == ("https", "http"):
                raise self.refusal("it redirects from https to http")
            if (there.scheme, there.netloc) != (here.scheme, here.netloc):
                secrets = {}
        raise self.refusal("it redirects without end")

    def _ask(self, url: Url, headers: Mapping[str, str], timeout: float) -> BaseHTTPResponse:
        manager, doors = _manager(url), self
        pool = manager.connection_from_url(url.url)

        class Guarded(pool.ConnectionCls):  # type: ignore[name-defined,misc]
            def _new_conn(self) -> socket.socket:
                return doors.connect(self._dns_host, self.port, self.timeout)

        pool.ConnectionCls = Guarded
        return manager.urlopen(
            "GET",
            url.url,
            headers=headers,
            timeout=timeout,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )

    def connect(self, host: str, port: int, timeout: float | None) -> socket.socket:
        """As `socket.create_connection`. Raises `ConfigurationError` for a forbidden address."""
        failure: OSError | None = None
        for family, kind, protocol, place in self.places(host, port):
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(timeout)
                made.connect(place)
            except OSError as error:
                failure = error
                made.close()
                continue
            self._public = self._public or _meant(_address_of(place)).is_global
            return made
        raise failure or OSError("the name has no address")

    def places(self, host: str, port: int) -> list[tuple[int, int, int, Any]]:
        """The addresses of `host` for a socket. Raises `ConfigurationError` if they are forbidden,
        `OSError` if the name cannot be resolved.
        """
        self.require_name(host)
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        for *_, place in found:
            self._require(_address_of(place))
        return [(family, kind, protocol, place) for family, kind, protocol, _, place in found]

    def require_name(self, host: str) -> None:
        """Refuse a host by its name; if a proxy resolves names, only the name can be checked here."""
        name = host.strip("[]").rstrip(".").lower()
        if name in _METADATA_NAMES:
            raise self.refusal("it is a cloud's metadata service")
        try:
            literal = ip_address(name)
        except ValueError:
            return
        self._require(literal)

    def _require(self, address: Address) -> None:
        why = forbidden(address, public_origin=self._public)
        if why is not None:
            raise self.refusal(why)

    def refusal(self, why: str) -> ConfigurationError:
        """The error for an address that is not fetched."""
        return ConfigurationError(f"this address is not fetched: {why}", where=self._shown, hint=_HINT)


def _manager(url: Url) -> PoolManager:
    """What connects to `url`: by the environment's proxy, where there is one for it."""
    proxy = None if proxy_bypass(url.netloc or "") else getproxies().get(url.scheme or "")
    if proxy is None:
        return PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    user = parse_url(proxy).auth
    return ProxyManager(proxy, proxy_headers=make_headers(proxy_basic_auth=user and unquote(user)))

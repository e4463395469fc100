"""Which addresses may be fetched from, decided where it counts: at the socket, after the name was resolved.

    URL ──► scheme http, https? ──► host resolved ──► any address forbidden? ──► connected to exactly that address
     ▲                                                                              │
     └───────────────────────── redirect: the same again ◄──────────────────────────┘

Forbidden are link-local addresses and the metadata services of clouds, which give credentials to whoever asks from
inside, in every spelling (``169.254.169.254``, ``0xA9FEA9FE``, ``[::ffff:a9fe:a9fe]``, a name that resolves to it); and
what a redirect leads to on this machine or in a private network, when the address the user wrote is a public one. A
name that resolves differently the second time gains nothing: the address that was checked is the one connected to.
"""

from __future__ import annotations

import http.client
import socket
import urllib.request
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import IO, Any
from urllib.parse import urlsplit

from headrace.errors import ConfigurationError

__all__ = ["Doors", "forbidden", "opener"]

Address = IPv4Address | IPv6Address
# metadata services outside the link-local ranges: AWS over IPv6, Alibaba, Azure, Oracle
_METADATA = {ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")}
_METADATA_NAMES = {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
_NAT64 = ip_network("64:ff9b::/96")
_HINT = "it gives credentials to whoever asks from inside; write the address of a feed"


def forbidden(address: Address, *, public_origin: bool = False) -> str | None:
    """Why `address` may not be connected to, ``None`` where it may. `public_origin` says that a redirect leads there
    from a public address.
    """
    meant = _meant(address)
    if meant in _METADATA:
        return "it is a cloud's metadata service"
    if meant.is_link_local:
        return "it is a link-local address"
    if meant.is_multicast or meant.is_unspecified:
        return "it is no address of a server"
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

    def connect(self, address: tuple[str, int], timeout: Any = None, source: Any = None) -> socket.socket:
        """As `socket.create_connection`. Raises `ConfigurationError` for an address that is forbidden."""
        host, port = address
        failure: OSError | None = None
        for family, kind, protocol, place in self.places(host, port):
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(timeout if isinstance(timeout, int | float) else None)
                if source:
                    made.bind(source)
                made.connect(place)
            except OSError as error:
                failure = error
                made.close()
                continue
            self._public = self._public or _meant(_address_of(place)).is_global
            return made
        raise failure or OSError("the name has no address")

    def places(self, host: str, port: int) -> list[tuple[int, int, int, Any]]:
        """Where `host` is to be found, as sockets take it. Raises `ConfigurationError` if it may not be connected to,
        `OSError` if its name is not known.
        """
        self.require_name(host)
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        for *_, place in found:
            self._require(_address_of(place))
        return [(family, kind, protocol, place) for family, kind, protocol, _, place in found]

    def require_name(self, host: str) -> None:
        """Refuse what is known by its name; where a proxy resolves names, it is all that can be seen from here."""
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


def opener(doors: Doors) -> urllib.request.OpenerDirector:
    """An opener that knows http and https alone, and connects through `doors`, redirects included."""
    made = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler(),
        _Http(doors),
        _Https(doors),
        _Redirects(doors),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ]
    for handler in handlers:
        made.add_handler(handler)
    return made


def _through(kind: type[http.client.HTTPConnection], doors: Doors) -> Callable[..., http.client.HTTPConnection]:
    def make(*given: Any, **named: Any) -> http.client.HTTPConnection:
        connection = kind(*given, **named)
        connection._create_connection = doors.connect  # type: ignore[attr-defined]
        return connection

    return make


class _Http(urllib.request.HTTPHandler):
    def __init__(self, doors: Doors) -> None:
        super().__init__()
        self._doors = doors

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        self._doors.require_name(urlsplit(req.full_url).hostname or "")
        return self.do_open(_through(http.client.HTTPConnection, self._doors), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, doors: Doors) -> None:
        super().__init__()
        self._doors = doors

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        self._doors.require_name(urlsplit(req.full_url).hostname or "")
        return self.do_open(_through(http.client.HTTPSConnection, self._doors), req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and never from https down to http."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        parts = urlsplit(newurl)
        before = urlsplit(req.full_url)
        if parts.scheme == "http" and before.scheme == "https":
            raise self._doors.refusal("it redirects from https to http")
        self._doors.require_name(parts.hostname or "")
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and (parts.scheme, parts.netloc) == (before.scheme, before.netloc):
            # headers may be secrets: another host is not told them
            made.unredirected_hdrs.update(req.unredirected_hdrs)
            made.unredirected_hdrs.pop("Host", None)
        return made

    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any) -> Any:
        """Refuse what the standard library would refuse too, in our words."""
        target = urlsplit(headers.get("Location") or headers.get("URI") or "")
        if target.scheme not in ("", "http", "https"):
            raise self._doors.refusal(f"it redirects to {target.scheme}:")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

"""A TCP proxy before a PostgreSQL server that does what networks do: lose an answer, reset, go silent, delay, dribble.

It understands just enough of the protocol to tell a COMMIT and the answer to it. What it is to do next is set while it
runs (`Proxy.trouble`); every connection looks at it for each block of bytes.

A black hole is a real one: a socket filter has the kernel drop what comes in before TCP sees it, so that nothing is
acknowledged, not even a probe. No privilege is needed for that.
"""

from __future__ import annotations

import ctypes
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

__all__ = ["Proxy", "Trouble", "drop_all", "proxied", "reset"]

Trouble = Literal["none", "swallow", "reset", "black hole", "delay", "dribble", "scatter"]
BLOCK = 1 << 16
COMMITTED = b"C\0\0\0\x0bCOMMIT\0"
YOUR_TURN = re.compile(rb"Z\0\0\0\x05[ITE]|G\0\0\0.[\0\x01]", re.DOTALL)  # ready for a query, or for a COPY's rows
WROTE = (b"INSERT 0 ", b"COPY ", b"UPDATE ")
_SO_ATTACH_FILTER = 26
_DROP_ALL = struct.pack("HBBI", 6, 0, 0, 0)  # classic BPF: return 0 bytes of the packet


@dataclass
class Proxy:
    """`trouble` is what to do now; `swallowed` counts the answers to COMMIT kept back, `struck` the other troubles."""

    url: str
    trouble: Trouble = "none"
    swallowed: int = 0
    struck: int = 0
    pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    ends: list[socket.socket] = field(default_factory=list)
    """Every socket that there ever was."""
    holes: list[socket.socket] = field(default_factory=list)
    wrote: set[socket.socket] = field(default_factory=set)
    """Connections whose transaction has written something."""
    writers: set[socket.socket] = field(default_factory=set)
    """Connections that have written something at some time."""
    turns: int = 0
    """How often the server gave the word back to a client, which had waited for that: a round trip each."""

    def strike(self) -> None:
        """Reset, or send into a black hole, every connection that writes."""
        for near, far in list(self.pairs):
            if near in self.writers:
                self._strike(near, far)

    def strike_all(self) -> None:
        """The same for every connection there is."""
        for near, far in list(self.pairs):
            self._strike(near, far)

    def _strike(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            if self.trouble == "black hole":
                self.holes.append(near)
                drop_all(near)
                # what the server hears is that its client is gone
                far.shutdown(socket.SHUT_RDWR)
            else:
                reset(near)
            self.struck += 1
        with suppress(ValueError):
            self.pairs.remove((near, far))

    def pass_on(self, block: bytes, near: socket.socket, far: socket.socket, *, up: bool) -> bool:
        """Send `block` on; returns whether the connection goes on."""
        self.turns += 0 if up else len(YOUR_TURN.findall(block))
        if not up and any(said in block for said in WROTE):
            self.wrote.add(near)
            self.writers.add(near)
        ended = not up and COMMITTED in block
        if ended and near in self.wrote and self.trouble == "swallow":
            # the server has committed; the client will never know
            self.swallowed += 1
            reset(near)
            return False
        if ended:
            self.wrote.discard(near)
        sink = far if up else near
        if self.trouble == "delay":
            time.sleep(0.01)
        if self.trouble == "scatter" and up:
            for message in _messages(block):
                sink.sendall(message)
                time.sleep(0.02)  # the server is done with it, most likely, before the next comes
            return True
        step = 1 if self.trouble == "dribble" else len(block)
        for start in range(0, len(block), step):
            sink.sendall(block[start : start + step])
        return True


def _messages(block: bytes) -> Iterator[bytes]:
    """What a client has sent, cut where one message of the protocol ends. For messages that come whole."""
    while block:
        length = 1 + int.from_bytes(block[1:5], "big")
        yield block[:length]
        block = block[length:]


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy before the server at `url`, on a Unix socket or a port."""
    parts = urlsplit(url)
    folder = parse_qs(parts.query).get("host")
    behind = f"{folder[0]}/.s.PGSQL.5432" if folder else (str(parts.hostname), parts.port or 5432)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = f"{parts.scheme}://postgres:@127.0.0.1:{listener.getsockname()[1]}{parts.path}"
        proxy = Proxy(near)
        serve = threading.Thread(target=_serve, args=(listener, behind, proxy), daemon=True)
        serve.start()
        yield proxy
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        serve.join()
        for end in proxy.ends:
            end.close()


def _serve(listener: socket.socket, behind: str | tuple[str, int], proxy: Proxy) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX if isinstance(behind, str) else socket.AF_INET)
        proxy.ends += [near, far]
        try:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far.connect(behind)
        except OSError:
            near.close()
            continue
        proxy.pairs.append((near, far))
        for up in (True, False):
            threading.Thread(target=_relay, args=(near, far, proxy, up), daemon=True).start()


def _relay(near: socket.socket, far: socket.socket, proxy: Proxy, up: bool) -> None:
    source, sink = (near, far) if up else (far, near)
    with suppress(OSError):
        while block := source.recv(BLOCK):
            if not proxy.pass_on(block, near, far, up=up):
                break
    if sink not in proxy.holes:  # from there nothing comes, not even the end
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def reset(near: socket.socket) -> None:
    """End the connection with RST, whatever is on its way."""
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # a close alone waits for the other thread to leave recv
    near.shutdown(socket.SHUT_RD)
    near.close()


def drop_all(near: socket.socket) -> None:
    """Have the kernel drop every packet that comes in, unacknowledged."""
    program = ctypes.create_string_buffer(_DROP_ALL)
    near.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))

"""Parcels: rows sent between the coordinator and the workers, without being pickled row by row.

    MemoryParcel    the batch itself                  sequential mode: nothing is copied
    FileParcel      an Arrow IPC file in the spool    a process pool: whoever opens it maps it, nobody copies it
    BytesParcel     an Arrow IPC file as bytes        workers on another machine, which cannot read the spool

A parcel is opened where its rows are needed; until then it is a path of a few bytes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pyarrow as pa

from headrace.errors import HeadraceError
from headrace.runtime.scratch import private_file

__all__ = [
    "BytesParcel",
    "FileParcel",
    "MemoryParcel",
    "Pack",
    "Parcel",
    "SpoolUnseen",
    "Unchanged",
    "Unseen",
    "pack_bytes",
    "packer",
]


class Parcel(Protocol):
    """One record batch, wherever it lies."""

    def open(self) -> pa.RecordBatch:
        """The batch. Raises `SpoolUnseen` if the spool cannot be read."""

    def discard(self) -> None:
        """Release its memory or file; batches opened before stay valid."""


Pack = Callable[[pa.RecordBatch], Parcel]


class Unseen(HeadraceError):  # noqa: N818 - a fact about the place, answered by doing the work elsewhere
    """A worker cannot read a file that the coordinator has."""


class SpoolUnseen(Unseen):
    """A worker cannot read the coordinator's spool folder. If the coordinator itself cannot read it, it was removed."""

    @classmethod
    def at(cls, path: Path) -> SpoolUnseen:
        """The error that `path` does not exist."""
        return cls(
            "rows in the temporary folder are gone",
            where=str(path),
            hint="something removes files there while they are in use; set TMPDIR to another folder, and run the same "
            "command again to resume",
        )


@dataclass(frozen=True, slots=True)
class MemoryParcel:
    """A batch in this process."""

    batch: pa.RecordBatch

    def open(self) -> pa.RecordBatch:
        """The batch itself."""
        return self.batch

    def discard(self) -> None:
        """Nothing to remove."""


@dataclass(frozen=True, slots=True)
class FileParcel:
    """A batch in a file of the spool."""

    path: Path

    def open(self) -> pa.RecordBatch:
        """The batch, memory-mapped: pages are read when touched, and shared by all who map them."""
        try:
            with self.path.open("rb") as file:
                # Python's own mapping: where there is no room, it says so by a number, and Arrow's in words alone
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise SpoolUnseen.at(self.path) from None
        return pa.ipc.open_file(pa.py_buffer(mapped)).get_batch(0)

    def discard(self) -> None:
        """Remove the file; a mapping keeps its pages until the last array that views them is gone."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class BytesParcel:
    """A batch as the bytes of an Arrow IPC file."""

    content: bytes = field(repr=False)

    def open(self) -> pa.RecordBatch:
        """The batch, which views the bytes."""
        return pa.ipc.open_file(pa.BufferReader(self.content)).get_batch(0)

    def discard(self) -> None:
        """Nothing to remove."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Stands for a parcel that its sender still has, and need not get back."""

    def open(self) -> pa.RecordBatch:
        """Nobody opens it: the sender puts its own in this place."""
        raise SpoolUnseen("an unchanged parcel is with its sender")

    def discard(self) -> None:
        """Nothing to remove."""


def packer(spool: Path | None) -> Pack:
    """How a worker sends rows back: through the spool if it shares one with the coordinator, else as bytes."""
    return pack_bytes if spool is None else lambda batch: _pack_file(batch, spool)


def pack_bytes(batch: pa.RecordBatch) -> BytesParcel:
    """`batch` as bytes."""
    sink = pa.BufferOutputStream()
    _write(sink, batch)
    return BytesParcel(sink.getvalue().to_pybytes())


def _pack_file(batch: pa.RecordBatch, spool: Path) -> FileParcel:
    path = spool / f"{os.getpid()}-{uuid4().hex}.arrow"
    try:
        with pa.OSFile(str(private_file(path)), "wb") as sink:
            _write(sink, batch)
    except FileNotFoundError:
        raise SpoolUnseen.at(spool) from None
    except OSError as error:
        path.unlink(missing_ok=True)
        raise HeadraceError(
            f"cannot spool {batch.num_rows:,} rows ({error})",
            where=str(spool),
            hint="free some space there, or set TMPDIR to a folder with more; then run again to resume",
        ) from error
    return FileParcel(path)


def _write(sink: pa.NativeFile, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)

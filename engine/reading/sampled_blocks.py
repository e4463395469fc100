"""An input's blocks. The first are a sample that decides the types; they are read once, and kept until given."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import pyarrow as pa

from headrace.errors import ConfigurationError
from headrace.partitioning.contract import LogicalType
from headrace.reading.reader import Block, Hint, Reader, require_few
from headrace.reading.types.cast import Caster, plain
from headrace.reading.types.inference import SampledColumn, infer

__all__ = ["SampledBlocks"]

_SAMPLE_ROWS = 200_000
_SAMPLE_BYTES = 16 << 20


class SampledBlocks:
    """The blocks of `reader`. With `take_one` a sample is one block where the reader declares the types."""

    def __init__(self, reader: Reader, caster: Caster, name: str, *, take_one: bool) -> None:
        self._reader = reader
        self._caster = caster
        self._name = name
        self._take_one = take_one
        self._sample: list[Block] | None = None
        self._rest: Iterator[Block] | None = None
        self._hints: dict[str, Hint] | None = None
        self.share = ShareRead()
        self.all_sampled = False

    def schema(self, types: Mapping[str, LogicalType], *, selected: bool) -> pa.Schema:
        """The input's own columns with their types, before any select; `types` overrides what the sample shows.

        Raises `ConfigurationError` for an override of no column, if the columns are `selected` from.
        """
        hints = self.hints()
        unknown = sorted(set(types) - set(hints)) if selected and hints else []
        if unknown:
            raise ConfigurationError(
                f"--type names the column {unknown[0]!r}, which the input does not have",
                where=self._name,
                hint=f"its columns are {', '.join(hints)}",
            )
        # how many digits a decimal has is told from its text
        wanted = None if "decimal" in types.values() else pa.schema([])
        pieces = [self._reader.tabulate(piece, list(hints), wanted=wanted) for piece in self.sample()]
        columns = [
            SampledColumn(
                name,
                [plain(piece.table.column(name)) for piece in pieces if name in piece.table.column_names],
                hint,
                types.get(name),
            )
            for name, hint in hints.items()
        ]
        return pa.schema(list(zip(hints, infer(self._caster, columns), strict=True)))

    def hints(self) -> dict[str, Hint]:
        """The columns and what their types may be, as the sample shows them."""
        if self._hints is None:
            self._hints = self._reader.hints(self.sample())
            require_few(len(self._hints), self._name)
        return self._hints

    def sample(self) -> list[Block]:
        """The sample: 16 MB or 200,000 rows, whichever is more, or one piece where types are declared; read once."""
        if self._sample is None:
            self._rest = self.share.noted(self._reader)
            self._sample = []
            rows = size = 0
            while rows < _SAMPLE_ROWS or size < _SAMPLE_BYTES:
                piece = next(self._rest, None)
                if piece is None:
                    self.all_sampled = True
                    break
                self._sample.append(piece)
                if self._reader.declared and self._take_one:
                    break
                rows, size = rows + piece.span, size + piece.table.nbytes
        return self._sample

    def forget(self) -> None:
        """Let go of what the sample has read: others read it again."""
        self._sample = self._rest = None

    def all(self) -> Iterator[Block]:
        """All pieces; what the sample has taken is not read again, and not kept once it was given."""
        sample, rest = self._sample or [], self._rest
        self._sample, self._rest = None, None
        if rest is None:
            yield from self.share.noted(self._reader)
            return
        while sample:
            yield sample.pop(0)
        yield from rest


class ShareRead:
    """How much of an input was given as chunks, 0 to 1: within a piece in proportion to its rows."""

    def __init__(self) -> None:
        self.given = 0.0
        self._ends: deque[tuple[int, float]] = deque()  # of pieces: their last row, and the share up to it
        self._before = (0, 0.0)

    def noted(self, reader: Reader) -> Iterator[Block]:
        """The reader's pieces from the first one on."""
        self.given, self._before = 0.0, (0, 0.0)
        self._ends.clear()
        for piece in reader.pieces():
            self._ends.append((piece.first_row + piece.span, reader.share))
            yield piece

    def give(self, row: int) -> None:
        """All rows before `row` are given."""
        while self._ends and self._ends[0][0] <= row:
            self._before = self._ends.popleft()
        (first, share), (end, whole) = self._before, self._ends[0] if self._ends else self._before
        self.given = share + (whole - share) * (row - first) / (end - first) if end > first else share

"""CSV and TSV: the dialect is settled once, then every record is read exactly once, as text.

    file ──► sample ──► delimiter, header ──► Arrow's streaming CSV parser ──► columns of text
                                                    │
                                                    └─► records with too few or too many fields: rejects, in their place

The quote is ``"``, doubled inside a quoted field; records end with LF, CRLF or CR; empty lines are no records; an
empty cell is null and a quoted empty one (``""``) is empty text. The delimiter is the extension's, unless that gives a
single column and another of ``, ; tab |`` gives more. The first record is the header unless it has a cell that is a
number, a date or a time; columns are then called ``column0``, ``column1``, … as are those whose header is empty; a name
that occurs twice gets ``_1``, ``_2``.

Arrow reads here, not DuckDB, because it reports a bad record with its number as soon as it reads the record. It cannot
read a record longer than its block: from such a record on, the file is read through `headrace.reading.csv_records`.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from headrace.errors import InputError
from headrace.reading.arrow_pacing import Paced, Readable
from headrace.reading.csv_records import Careful, records_of
from headrace.reading.locator import Locator, csv_places
from headrace.reading.not_data import require_no_markup
from headrace.reading.reader import Block, Hint, RawLine, require_few
from headrace.reading.steady_files import Steady
from headrace.reading.text_stream import ESCAPED, TAIL, Excerpt, FileProgress, Utf8, open_text, readable, unescape
from headrace.storage.rejects import Reject

__all__ = ["CsvReader", "Dialect", "settle_dialect"]

_BLOCK = 4 << 20
_SAMPLE = 1 << 20
_RECORDS = 1000
_DELIMITERS = ",;\t|"
_VALUE = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|\s*\d{4}-\d\d-\d\d([ T]\d\d:\d\d.*)?")
RefuseRow: TypeAlias = Callable[[arrow_csv.InvalidRow], str]
_TYPES: Hint = ("bool", "integer", "float", "date", "timestamp", "string")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The dialect of a CSV file: its delimiter, its columns, and whether its first record names them."""

    delimiter: str
    columns: tuple[str, ...]
    header: bool


def settle_dialect(sample: str, delimiter: str, *, whole: bool) -> Dialect:
    """The dialect of the text that starts with `sample`; `whole` says that nothing follows it."""
    others = sorted(_DELIMITERS.replace(delimiter, ""), key=lambda other: -_width(sample, other, whole))
    if _width(sample, delimiter, whole) == 1 < _width(sample, others[0], whole):
        delimiter = others[0]
    first = next(_records(sample, delimiter, whole), [])
    header = not any(_VALUE.fullmatch(cell) for cell in first)
    return Dialect(delimiter, _names(first if header else [""] * len(first)), header)


class CsvReader:
    """Reads one CSV file, or some of its records where its `dialect` is known. `name` is what rejects call it."""

    declared = False

    def __init__(self, file: Steady | Excerpt, name: str, delimiter: str, dialect: Dialect | None = None) -> None:
        self._file = file
        self._name = name
        self._progress = FileProgress()
        self._paced: Paced | None = None
        self.share = 0.0
        self.dialect = dialect = dialect or self._settle(delimiter)
        places = partial(csv_places, name=name, delimiter=dialect.delimiter, header=dialect.header)
        self._locator = Locator(file, places)

    def hints(self, sample: Sequence[Block]) -> dict[str, Hint]:  # noqa: ARG002 the protocol's signature
        """The header's names; any of them may turn out to be of any type."""
        return dict.fromkeys(self.dialect.columns, _TYPES)

    count: int | None = None  # only reading tells

    def pieces(self) -> Iterator[Block]:
        """The records in order; records with a wrong number of fields, bytes that are not UTF-8, or more bytes than
        Arrow's parser takes at once are rejects.
        """
        records = _Records(self._name, self.dialect)
        try:
            yield from self._pieces(records, self._all)
        except _TooLong as error:
            if records.next == 0 and self.dialect.header:
                raise self._not_split(error.__cause__) from error
            records.forget_ahead()
            yield from self._pieces(records, self._careful)

    def _pieces(
        self, records: _Records, feed: Callable[[Utf8, _Records], Iterator[pa.RecordBatch]]
    ) -> Generator[Block, None, None]:
        with open_text(self._file, self._progress) as text, readable(self._name):
            last: Block | None = None
            share = self.share
            try:
                for batch in feed(text, records):
                    if last is not None:
                        text.check()
                        self.share = share
                        yield last
                    last = records.piece(batch, escaped=text.escaped)
                    share = self._paced.share if self._paced else 0.0
            except _TooLong:
                if last is not None:
                    text.check()
                    yield last
                raise
            text.finish(lines=True)
            self.share = 1.0
            yield from records.finish(last, text.tail)

    def _all(self, text: Utf8, records: _Records) -> Iterator[pa.RecordBatch]:
        """All of the text. Arrow counts records from 1, the header included."""
        return self._parse(text, lambda row: records.refuse(row.number - 1, row.text))

    def _careful(self, text: Utf8, records: _Records) -> Iterator[pa.RecordBatch]:
        """The records that are still to come, without those that are too long."""
        texts = (record for _, record in records_of(text, self.dialect.delimiter, self._name))
        feed = Careful(texts, records.next, _BLOCK, records.refuse_long)
        if not feed.has_more():
            return iter(())
        # a block holds the longest of them, and a little less than was asked for may come (`_Fed`)
        return self._parse(feed, lambda row: records.refuse(feed.number(row.number - 1), row.text), _BLOCK + 16)

    def _parse(self, text: Readable, refuse: RefuseRow, block: int | None = None) -> Iterator[pa.RecordBatch]:
        columns = list(self.dialect.columns)
        paced = self._paced = Paced(_Fed(text), lambda: self._progress.share)
        try:
            batches = arrow_csv.open_csv(
                pa.PythonFile(paced, mode="r"),
                # one thread: only then does Arrow number the records that it refuses
                read_options=arrow_csv.ReadOptions(use_threads=False, block_size=block or _BLOCK, column_names=columns),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=self.dialect.delimiter, newlines_in_values=True, invalid_row_handler=refuse
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    check_utf8=False,
                ),
            )
            yield from paced.items(iter(batches))
        except pa.ArrowInvalid as error:
            if block is None:  # most likely a record that a block does not hold; with care there is none
                raise _TooLong from error
            raise self._not_split(error) from error
        finally:
            paced.stop()

    def _not_split(self, error: BaseException | None) -> InputError:
        return InputError(
            f"cannot be split into records ({str(error).splitlines()[0]})",
            where=self._name,
            hint=f"look for a quote that opens and never closes; a record may have {_BLOCK >> 20} MiB at most",
        )

    def _settle(self, delimiter: str) -> Dialect:
        with open_text(self._file) as text, readable(self._name):
            sample = b""
            while len(sample) < _SAMPLE and (block := text.read(_SAMPLE - len(sample))):
                sample += block
            require_no_markup(sample, self._name)
            dialect = settle_dialect(sample.decode(errors="ignore"), delimiter, whole=not text.read(1))
            text.check()
        if not dialect.columns:
            raise InputError("the file is empty", where=self._name, hint="a CSV file begins with its columns' names")
        require_few(len(dialect.columns), self._name)
        if any("\0" in column or re.search(ESCAPED, column) for column in dialect.columns):
            raise InputError(
                "the header is not UTF-8 text",
                where=self._name,
                hint="convert the file first, for example: iconv -f UTF-16 -t UTF-8 in.csv > out.csv",
            )
        return dialect

    def tabulate(
        self,
        piece: Block,
        names: Sequence[str],
        *,
        late: bool = False,  # noqa: ARG002 the protocol's signature
        wanted: pa.Schema | None = None,  # noqa: ARG002 likewise
    ) -> Block:
        """Only the requested columns; the header has all columns."""
        kept = [name for name in piece.table.column_names if name in set(names)]
        return replace(piece, table=piece.table.select(kept))

    def locate(self, rows: Sequence[int]) -> dict[int, RawLine]:
        """A second pass over the file, which continues from the last row while rows ascend."""
        return self._locator.locate(rows)


class _Fed:
    """`text` as Arrow's parser must be given it: behind a byte order mark, and in blocks that do not end in a CR.

    Arrow takes a mark away wherever it begins to read, also a cell's. Where a block ends in CR it leaves out an LF at
    the next one's beginning, also within quotes.
    """

    def __init__(self, text: Readable) -> None:
        self._text = text
        self._held = codecs.BOM_UTF8

    def read(self, size: int) -> bytes:
        """At most `size` bytes; ``b""`` at the end only."""
        held, self._held = self._held, b""
        block = held + self._text.read(size - len(held)) if held else self._text.read(size)
        while block.endswith(b"\r") and (more := self._text.read(1)):
            if len(block) > 1:
                self._held = b"\r" + more
                return block[:-1]
            block += more
        return block


class _TooLong(Exception):  # noqa: N818 - a fact about the file, answered by reading it with care
    """Arrow reads no further: most likely a record does not end within a block."""


class _Records:
    """Numbers records while they pass: Arrow gives good ones in batches, and the others as it meets them, ahead."""

    def __init__(self, name: str, dialect: Dialect) -> None:
        self._name = name
        self._delimiter = dialect.delimiter
        self._fields = len(dialect.columns)
        self._header = int(dialect.header)
        self.next = 0
        self._refused: list[tuple[int, str, str]] = []  # number, reason, text, ascending

    def refuse(self, number: int, text: str) -> str:
        """Arrow's handler of invalid rows: keep it aside and go on."""
        insort(self._refused, (number, f"the record does not have {self._fields} fields", text))
        return "skip"

    def refuse_long(self, number: int, text: bytes) -> None:
        """Keep aside a record that Arrow never sees."""
        why = f"the record is longer than {_BLOCK >> 20} MiB"
        insort(self._refused, (number, why, text.decode().rstrip("\r\n")))

    def forget_ahead(self) -> None:
        """Forget the records refused after the last good one: they will be read again."""
        self._refused = [refused for refused in self._refused if refused[0] < self.next]

    def piece(self, batch: pa.RecordBatch, *, escaped: bool) -> Block:
        """The next piece: the batch's records, and the refused ones that stand before the last of them."""
        numbers = self._numbers(batch.num_rows)
        end = int(numbers[-1]) + 1 if len(numbers) else self.next
        first, rejects = self.next - self._header, self._take(end)
        table = pa.table(batch)
        if self.next == 0 and self._header:
            first, table, numbers = 0, table.slice(1), numbers[1:]
        self.next = end
        piece = Block(first, end - self._header - first, table, numbers - self._header, rejects)
        return _without_escaped(piece, self._name) if escaped else piece

    def finish(self, last: Block | None, tail: bytes) -> Iterator[Block]:
        """The last piece and what was refused after it; `tail` is the text's end. A quote that never closes has
        swallowed it.
        """
        if last is not None:
            yield last if self._refused else _without_runaway(last, tail, self._delimiter, self._name)
        if self._refused:
            first, end = self.next - self._header, self._refused[-1][0] + 1
            rejects = self._take(end)
            empty = pa.table({}) if last is None else last.table.slice(0, 0)
            yield Block(first, end - self._header - first, empty, np.empty(0, np.int64), rejects)

    def _numbers(self, count: int) -> NDArray[np.int64]:
        """The records' numbers, the refused ones left out."""
        numbers = np.arange(self.next, self.next + count, dtype=np.int64)
        for refused, _, _ in self._refused:
            numbers[bisect_left(numbers, refused) :] += 1
        return numbers

    def _take(self, end: int) -> list[Reject]:
        taken = [refused for refused in self._refused if refused[0] < end]
        self._refused = self._refused[len(taken) :]
        return [
            Reject(self._name, number - self._header, None, None, why, unescape(text)) for number, why, text in taken
        ]


def _without_escaped(piece: Block, name: str) -> Block:
    """`piece` with the rows that hold an escaped byte turned into rejects."""
    bad = np.zeros(len(piece.rows), dtype=bool)
    for column in piece.table.columns:
        bad |= pc.match_substring_regex(column, ESCAPED).fill_null(False).to_numpy()
    return _without(piece, bad, name, "the text is not valid UTF-8") if bad.any() else piece


def _without_runaway(piece: Block, tail: bytes, delimiter: str, name: str) -> Block:
    """`piece` without its last record, if that ends in a quoted cell which is still open at the text's end."""
    bad = np.zeros(len(piece.rows), dtype=bool)
    if len(bad):
        cells = piece.table.slice(len(bad) - 1).to_pylist()[0]
        bad[-1] = _is_open(list(cells.values())[-1], tail, delimiter, alone=len(cells) == 1)
    return _without(piece, bad, name, "a quote opens in this record and never closes") if bad.any() else piece


def _is_open(cell: str | None, tail: bytes, delimiter: str, *, alone: bool) -> bool:
    """Whether the text that ends in `tail` ends within quotes.

    `cell` is its last one, as the parser has it, and `alone` says that a record has no other.
    """
    if cell is None:
        return False
    quoted = b'"' + cell.replace('"', '""').encode()
    begins = (b"\n", b"\r", b"") if alone else (delimiter.encode(),)
    if len(quoted) + 8 > len(tail) == TAIL:  # where it begins cannot be seen
        return tail.endswith(quoted[-len(tail) :]) and any(mark in cell for mark in ("\n", "\r", '"', delimiter))
    if _ends_with_cell(tail.removesuffix(b"\n").removesuffix(b"\r"), quoted + b'"', begins):
        return False
    return _ends_with_cell(tail, quoted, begins)


def _ends_with_cell(tail: bytes, written: bytes, begins: tuple[bytes, ...]) -> bool:
    """Whether `tail` ends in `written`, and that stands where a cell begins."""
    before = tail.removesuffix(written)
    return before != tail and any(before.endswith(mark) if mark else not before for mark in begins)


def _without(piece: Block, bad: NDArray[np.bool_], name: str, why: str) -> Block:
    places = np.flatnonzero(bad)
    records = piece.table.take(places).to_pylist()
    rejects = [
        Reject(
            name, int(piece.rows[place]), None, None, why, ",".join(unescape(text or "") for text in record.values())
        )
        for place, record in zip(places.tolist(), records, strict=True)
    ]
    together = sorted([*piece.rejects, *rejects], key=lambda reject: reject.row or 0)
    return Block(piece.first_row, piece.span, piece.table.filter(pa.array(~bad)), piece.rows[~bad], together)


def _records(sample: str, delimiter: str, whole: bool) -> Iterator[list[str]]:
    """The sample's records, empty lines left out; the last may be cut and is left out unless this is `whole`."""
    lines = list(io.StringIO(sample, newline=""))  # str.splitlines would split at U+2028 and others too
    rows = csv.reader(lines if whole or len(lines) == 1 else lines[:-1], delimiter=delimiter)
    try:
        yield from (row for row in rows if row)
    except csv.Error:
        return


def _width(sample: str, delimiter: str, whole: bool) -> int:
    """How many fields the first records have if they agree, else 1."""
    widths = [len(row) for row in islice(_records(sample, delimiter, whole), _RECORDS)]
    return widths[0] if widths and widths.count(widths[0]) > len(widths) // 2 else 1


def _names(cells: list[str]) -> tuple[str, ...]:
    names: dict[str, int] = {}  # how many copies of each; a header may have a million fields
    for number, cell in enumerate(cells):
        name = wanted = cell.strip() or f"column{number}"
        while name in names:
            names[wanted] += 1
            name = f"{wanted}_{names[wanted]}"
        names[name] = 0
    return tuple(names)

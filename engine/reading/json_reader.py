"""JSON in three shapes: one object a line, an array of objects, the features of a GeoJSON collection.

    file ──► the text of each object, with its line ──► all plain? Arrow gives columns ─────────────────► the cast layer
              lines: split at newlines                  else DuckDB takes the members out as text
              array, features, values one after another: cut by Python's JSON scanner, one value at a time

So a file of any size is read in bounded memory, which DuckDB's own reader does not do for one long array. Members are
text from here on, numbers too (`headrace.reading.json_fast` goes round that where it makes no difference); DuckDB holds
a number as a 64-bit integer or a double, as RFC 8259 advises, so ``1.50`` comes out as ``1.5`` and more than 15 digits
need not survive unless they are quoted. Objects and arrays inside come out as JSON text. If a member occurs twice in an
object, the first counts. Names are matched exactly.

The columns of a feature are its properties, and ``geometry`` (JSON text) and ``id`` where no property of that name has
a value; its other members are left out. Other vendors' JSON with a member ``features`` is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headrace.errors import InputError
from headrace.reading.json_fast import plain_kind, plain_objects, type_within
from headrace.reading.json_scanner import elements
from headrace.reading.locator import Locator
from headrace.reading.not_data import require_no_markup
from headrace.reading.reader import Block, Hint, RawLine, require_few
from headrace.reading.sql import Connect, evaluate, literal
from headrace.reading.steady_files import Steady
from headrace.reading.text_stream import ESCAPED, LONGEST, Excerpt, FileProgress, Utf8, open_text, readable, unescape
from headrace.storage.rejects import Reject

__all__ = ["JsonReader", "Members"]

_BLOCK = 4 << 20
_LF = 10
_PIECE_ROWS = 16_384
_FIRST_ROWS = 1_000
_CHANCES = 3  # of a file, to be plain: pieces that are not cost a little more for having been tried
_JSON = "json"
_BESIDE = ("geometry", "id")
_NO_FEATURE = "this is not a GeoJSON feature: it has no object 'properties'"
_IS_FEATURE = (
    "coalesce(json_type(c0, '/properties') IN ('OBJECT', 'NULL'), json_extract_string(c0, '/type') = 'Feature', false)"
)
_STRING: Hint = ("date", "timestamp", "string")
_NUMBER: Hint = ("integer", "decimal", "float", "string")
_HINTS: dict[frozenset[str], Hint] = {
    frozenset({"BOOLEAN"}): ("bool",),
    frozenset({"VARCHAR"}): _STRING,
    frozenset({"UBIGINT"}): _NUMBER,
    frozenset({"BIGINT"}): _NUMBER,
    frozenset({"UBIGINT", "BIGINT"}): _NUMBER,
}
_DOUBLES: Hint = ("float", "string")


@dataclass(frozen=True, slots=True)
class Members:
    """The members that the sample of a file has, and the types of the `plain` ones, if all are."""

    sampled: frozenset[str]
    plain: Mapping[str, pa.DataType]


class JsonReader:
    """Reads one JSON file of the given shape: ``lines``, ``values`` (an array, or one after another), ``features``; or
    some of its lines where its `members` are known.
    """

    declared = False

    def __init__(
        self, file: Steady | Excerpt, name: str, shape: str, connect: Connect, members: Members | None = None
    ) -> None:
        self._file = file
        self._name = name
        self._progress = FileProgress()
        self.share = 0.0
        self.shape = shape
        self._connect = connect
        self._locator = Locator(file, self._places)
        self._sampled: set[str] = set() if members is None else set(members.sampled)
        self._sampled_rows = 0
        self._plain: dict[str, pa.DataType] = {} if members is None else dict(members.plain)
        self._plain_chances = _CHANCES
        self._plain_sample: dict[int, pa.Table] = {}

    def hints(self, sample: Sequence[Block]) -> dict[str, Hint]:
        """The members that the sample's objects have, in order of appearance, and what their types may be."""
        kinds = self._plain_kinds(sample) or self._kinds(sample)
        self._sampled = set(kinds)
        self._sampled_rows = sample[-1].first_row + sample[-1].span if sample else 0
        return {name: _hint(kind) for name, kind in kinds.items()}

    @property
    def members(self) -> Members:
        """What `hints` has found."""
        return Members(frozenset(self._sampled), self._plain)

    def _kinds(self, sample: Sequence[Block]) -> dict[str, frozenset[str]]:
        """The members of the sample's objects, and the kinds of their values that are not null."""
        pieces = [self._objects(piece) for piece in sample]
        self._require_features(pieces)
        texts = [piece.table.column(_JSON) for piece in pieces]
        column = pa.chunked_array([chunk for text in texts for chunk in text.chunks], pa.string())
        names = self._names(column)
        (kinds,) = self._evaluated(column, [f"CAST(json_type(c0, {self._paths(names)}) AS VARCHAR[])"])
        seen = [set(pc.unique(pc.list_element(kinds, number)).to_pylist()) for number in range(len(names))]
        return {name: frozenset(kind - {None, "NULL"}) for name, kind in zip(names, seen, strict=True)}

    def _plain_kinds(self, sample: Sequence[Block]) -> dict[str, frozenset[str]] | None:
        """The same where the first objects show it and all others are plain, which takes a third of the time."""
        if self.shape == "features" or not sample or not sample[0].span:
            return None
        kinds = self._kinds([sample[0].split(min(_FIRST_ROWS, sample[0].span))[0]])
        types = {name: kind for name, found in kinds.items() if (kind := plain_kind(found)) is not None}
        if len(types) < len(kinds):
            return None
        tables: dict[int, pa.Table] = {}
        for piece in sample:
            if (table := plain_objects(piece.table.column(_JSON), types)) is None:
                return None
            tables[piece.first_row] = table
        self._plain, self._plain_sample = types, tables
        return kinds

    def _require_features(self, sample: Sequence[Block]) -> None:
        """Raise `InputError` for other JSON with a member 'features': nothing of its elements would be loaded."""
        refused = any(reject.reason == _NO_FEATURE for piece in sample for reject in piece.rejects)
        if refused and not any(piece.table.num_rows for piece in sample):
            raise InputError(
                "its member 'features' holds no GeoJSON features: they have no object 'properties'",
                where=self._name,
                hint="write its objects as JSON lines, for example: jq -c '.features[]' in.json > out.jsonl",
            )

    count: int | None = None  # only reading tells

    def pieces(self) -> Iterator[Block]:
        """The objects' texts in order, in one column."""
        with open_text(self._file, self._progress) as text, readable(self._name):
            last: Block | None = None
            first, share = 0, 0.0
            for lines, texts in self._blocks(text):
                rows = np.arange(first, first + len(texts), dtype=np.int64)
                if last is not None:
                    text.check()
                    self.share = share
                    yield last
                share = self._progress.share
                piece = Block(first, len(texts), pa.table({_JSON: texts}), rows, [], lines)
                last = self._without_escaped(piece) if text.escaped else piece
                first += len(texts)
            text.finish(lines=self.shape == "lines")
            self.share = 1.0
            if last is not None:
                yield last

    def tabulate(
        self, piece: Block, names: Sequence[str], *, late: bool = False, wanted: pa.Schema | None = None
    ) -> Block:
        """The members called `names` as columns of text, or typed where they are plain; what is no JSON object becomes
        a reject.
        """
        table = self._plainly(piece, wanted)
        if table is not None:
            return replace(piece, table=_columns(table, names), raw=piece.table.column(_JSON), plain=True)
        piece = self._tabulated(piece, names)
        if not late or piece.first_row < self._sampled_rows or piece.raw is None:
            return piece
        # costs a third of the extraction; counting what looks like names, to be spared it, costs as much
        known = self._sampled | set(names)
        more = [name for name in self._names(piece.raw) if name not in known]
        if not more:
            return piece
        require_few(len(names) + len(more), self._name)
        wider = pa.table(self._members(piece.raw, [*names, *more]), names=[*names, *more])
        return replace(piece, table=wider)

    def _plainly(self, piece: Block, wanted: pa.Schema | None) -> pa.Table | None:
        """The columns of a piece that is plain; ``None`` for another, or where text is wanted."""
        ready = self._plain_sample.pop(piece.first_row, None)
        types = self._types_within(wanted) if wanted is not None and self._plain_chances else None
        if types is None:
            return None
        if ready is not None and ready.num_rows == piece.span and types == self._plain:
            return ready
        table = plain_objects(piece.table.column(_JSON), types)
        self._plain_chances -= table is None
        return table

    def _types_within(self, wanted: pa.Schema) -> dict[str, pa.DataType] | None:
        """The types to read plain objects with, so that they go into the columns `wanted`; ``None`` if text must."""
        types: dict[str, pa.DataType] = {}
        for name, kind in self._plain.items():
            found = type_within(kind, wanted.field(name).type) if name in wanted.names else kind
            if found is None:
                return None
            types[name] = found
        return types or None

    def _tabulated(self, piece: Block, names: Sequence[str]) -> Block:
        import duckdb  # noqa: PLC0415 - as in `headrace.reading.sql`

        try:
            found = self._members(piece.table.column(_JSON), names)
            suspect = bool(pc.any(_all_null(self._inside(names, found), piece.table.num_rows)).as_py())
        except duckdb.Error:  # malformed JSON somewhere; looking beforehand would cost as much as the reading
            suspect = True
        if suspect:
            piece = self._objects(piece)
            found = self._members(piece.table.column(_JSON), names)
        table = pa.table(found, names=list(names)) if names else piece.table.select([])
        return replace(piece, table=table, raw=piece.table.column(_JSON))

    def _inside(self, names: Sequence[str], columns: Sequence[pa.ChunkedArray]) -> list[pa.ChunkedArray]:
        """The columns that only properties give: what is no feature may have a geometry, as in other vendors' JSON."""
        beside = _BESIDE if self.shape == "features" else ()
        return [column for name, column in zip(names, columns, strict=True) if name not in beside]

    def _members(self, text: pa.ChunkedArray, names: Sequence[str]) -> list[pa.ChunkedArray]:
        # what a feature has beside its properties stands at the list's end
        beside = [name for name in _BESIDE if name in names] if self.shape == "features" else []
        taken = f"json_extract_string(c0, {self._paths(names, beside)})"
        members = {name: f"{taken}[{number + 1}]" for number, name in enumerate(names)}
        for number, name in enumerate(beside, start=len(names)):
            members[name] = f"coalesce({members[name]}, {taken}[{number + 1}])"
        return self._evaluated(text, list(members.values()))

    def locate(self, rows: Sequence[int]) -> dict[int, RawLine]:
        """A second pass over the file, which continues from the last row while rows ascend."""
        return self._locator.locate(rows)

    def _places(self, stream: Utf8) -> Iterator[RawLine]:
        for lines, texts in self._blocks(stream):
            for line, text in zip(lines.tolist(), texts.to_pylist(), strict=True):
                yield line, unescape(text) if stream.escaped else text

    def _blocks(self, stream: Utf8) -> Iterator[tuple[NDArray[np.int64], pa.StringArray]]:
        """The texts of the objects and the lines (1-based) where they start."""
        if self.shape == "lines":
            yield from _line_blocks(stream, self._name)
            return
        found = elements(stream, self._name, features=self.shape == "features")
        while block := list(islice(found, _PIECE_ROWS)):
            yield np.array([line for line, _ in block], np.int64), pa.array([text for _, text in block], pa.string())

    def _evaluated(self, column: pa.ChunkedArray, expressions: Sequence[str]) -> list[pa.ChunkedArray]:
        return evaluate(self._connect(), column, expressions)

    def _names(self, column: pa.ChunkedArray) -> list[str]:
        inside = ", '/properties'" if self.shape == "features" else ""
        (keys,) = self._evaluated(column, [f"json_keys(c0{inside})"])
        names = dict.fromkeys(pc.unique(keys.combine_chunks().flatten()).to_pylist() if len(keys) else [])
        if self.shape == "features" and len(keys):
            names |= dict.fromkeys(name for name in _BESIDE if self._has(column, name))
        return list(names)

    def _has(self, column: pa.ChunkedArray, name: str) -> bool:
        (found,) = self._evaluated(column, [f"json_exists(c0, '/{name}')"])
        return bool(pc.any(found).as_py())

    def _paths(self, names: Sequence[str], beside: Sequence[str] = ()) -> str:
        """JSON pointers (RFC 6901) to the members, as an SQL list."""
        inside = "/properties/" if self.shape == "features" else "/"
        paths = [inside + name.replace("~", "~0").replace("/", "~1") for name in names]
        paths += [f"/{name}" for name in beside]
        return f"CAST([{', '.join(literal(path) for path in paths)}] AS VARCHAR[])"

    def _objects(self, piece: Block) -> Block:
        """`piece` with only JSON objects, the rest moved to its rejects."""
        (kinds,) = self._evaluated(
            piece.table.column(_JSON), ["coalesce(CASE WHEN json_valid(c0) THEN json_type(c0) END, '')"]
        )
        bad = pc.not_equal(kinds, "OBJECT").to_numpy()
        piece = self._without(piece, bad, "this is not a JSON object") if bad.any() else piece
        if self.shape != "features" or not piece.table.num_rows:
            return piece
        (features,) = self._evaluated(piece.table.column(_JSON), [_IS_FEATURE])
        bad = pc.invert(features).to_numpy()
        return self._without(piece, bad, _NO_FEATURE) if bad.any() else piece

    def _without_escaped(self, piece: Block) -> Block:
        escaped = pc.match_substring_regex(piece.table.column(_JSON), ESCAPED).to_numpy()
        return self._without(piece, escaped, "the text is not valid UTF-8", escaped=True) if escaped.any() else piece

    def _without(self, piece: Block, bad: NDArray[np.bool_], why: str, *, escaped: bool = False) -> Block:
        lines = piece.lines if piece.lines is not None else np.zeros(len(bad), np.int64)
        texts = [
            unescape(text) if escaped else text for text in piece.table.column(_JSON).filter(pa.array(bad)).to_pylist()
        ]
        rejects = [
            Reject(self._name, row, line, None, why, text)
            for row, line, text in zip(piece.rows[bad].tolist(), lines[bad].tolist(), texts, strict=True)
        ]
        together = sorted([*piece.rejects, *rejects], key=lambda reject: reject.row or 0)
        table = piece.table.filter(pa.array(~bad))
        return Block(piece.first_row, piece.span, table, piece.rows[~bad], together, lines[~bad])


def _hint(kinds: frozenset[str]) -> Hint:
    if not kinds:
        return ("string",)
    if "DOUBLE" in kinds and kinds <= {"DOUBLE", "UBIGINT", "BIGINT"}:
        return _DOUBLES
    return _HINTS.get(kinds, ("string",))


def _all_null(columns: list[pa.ChunkedArray], rows: int) -> pa.ChunkedArray:
    """Which rows have a value in none of the columns: either they are empty objects, or no objects at all."""
    empty = pa.chunked_array([np.ones(rows, dtype=bool)])
    for column in columns:
        empty = (
            pc.and_(empty, pc.is_null(column)) if column.null_count else pa.chunked_array([np.zeros(rows, dtype=bool)])
        )
    return empty


def _columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The columns called `names`; null where there is none."""
    if not names:
        return table.select([])
    missing = pa.nulls(table.num_rows, pa.string())
    return pa.table(
        [table.column(name) if name in table.column_names else missing for name in names], names=list(names)
    )


def _line_blocks(stream: Utf8, name: str) -> Iterator[tuple[NDArray[np.int64], pa.StringArray]]:
    """The lines that are not blank, a block of the file at a time. Here a line ends with LF alone, as NDJSON has it."""
    rest, first = b"", 1
    while block := stream.read(_BLOCK):
        if stream.at_start and first == 1 and not rest:
            require_no_markup(block, name)
        text = rest + block
        end = text.rfind(b"\n") + 1
        rest = text[end:]
        if len(rest) > LONGEST:
            raise InputError(
                f"a line has more than {LONGEST >> 20} MiB", where=name, hint="JSON lines has one object a line"
            )
        ends = np.flatnonzero(np.frombuffer(text, np.uint8, end) == _LF) + 1
        yield _not_blank(text, ends, first)
        first += len(ends)
    if rest.strip():
        yield _not_blank(rest, np.array([len(rest)]), first)


def _not_blank(text: bytes, ends: NDArray[np.int64], first: int) -> tuple[NDArray[np.int64], pa.StringArray]:
    """The lines of `text` that end at `ends`, without white space around them, and their numbers from `first` on."""
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(text))
    texts = pc.ascii_trim_whitespace(lines)
    numbers = np.arange(first, first + len(ends), dtype=np.int64)
    blank = pc.equal(texts, "").to_numpy(zero_copy_only=False)
    if not blank.any():
        return numbers, texts
    return numbers[~blank], texts.filter(pa.array(~blank))

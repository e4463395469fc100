"""A file that changes while a command is at work: its values come from one content, under that content's columns, or
the command ends with an error that says so.
"""

from __future__ import annotations

import gzip
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.program import Headrace

import headrace as hr
from headrace.api import load_with
from headrace.errors import InputChangedError, InputError
from headrace.observability.stages import Silent
from headrace.options.load import options_of
from headrace.reading.inputs import Input, ReadOptions, open_inputs

KINDS = ["csv", "csv.gz", "jsonl", "json", "parquet"]
ROWS = 12_000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in many blocks, of which the sample takes one: there is much left to read when a file changes."""
    monkeypatch.setattr("headrace.reading.csv_reader._BLOCK", 1 << 13)
    monkeypatch.setattr("headrace.reading.json_reader._BLOCK", 1 << 13)
    monkeypatch.setattr("headrace.reading.json_scanner._BLOCK", 1 << 13)
    monkeypatch.setattr("headrace.reading.json_reader._PIECE_ROWS", 500)
    monkeypatch.setattr("headrace.reading.columnar._BATCH_ROWS", 500)
    monkeypatch.setattr("headrace.reading.sampled_blocks._SAMPLE_ROWS", 100)
    monkeypatch.setattr("headrace.reading.sampled_blocks._SAMPLE_BYTES", 1)


def old_rows(count: int = ROWS) -> pa.Table:
    return pa.table({"k": pa.array(range(count), pa.int64()), "lat": [10.5] * count, "lon": [99.5] * count})


def new_rows(count: int = ROWS) -> pa.Table:
    """The same events with the columns the other way round, and other values."""
    return pa.table({"k": pa.array(range(count), pa.int64()), "lon": [98.5] * count, "lat": [11.5] * count})


def write(path: Path, rows: pa.Table) -> None:
    kind = path.name.partition(".")[2]
    if kind == "parquet":
        pq.write_table(rows, path, row_group_size=1000)
        return
    records = rows.to_pylist()
    if kind.startswith("csv"):
        body = ",".join(rows.column_names) + "\n" + "".join(",".join(map(str, one.values())) + "\n" for one in records)
    else:
        objects = ["{" + ", ".join(f'"{name}": {value}' for name, value in one.items()) + "}" for one in records]
        body = "\n".join(objects) + "\n" if kind == "jsonl" else "[" + ",\n".join(objects) + "]"
    path.write_bytes(gzip.compress(body.encode(), 1) if kind.endswith(".gz") else body.encode())


def replaced(path: Path) -> None:
    other = path.with_name(f"new.{path.name.partition('.')[2]}")
    write(other, new_rows())
    other.replace(path)


def rewritten(path: Path) -> None:
    """In place, under the same inode; with the same times, as `rsync --inplace --times` does."""
    facts = path.stat()
    write(path, new_rows())
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def removed(path: Path) -> None:
    path.unlink()


def touched(path: Path) -> None:
    path.touch()


CHANGES = [replaced, rewritten, cut, removed, touched]


def opened(path: Path) -> Input:
    options = ReadOptions(chunk_rows=500)
    (item,) = open_inputs([str(path)], options, None)
    return item


def read(item: Input, after_first: Callable[[], None] = lambda: None) -> list[tuple[float, float]]:
    """Latitude and longitude of each row, as a load would have them."""
    options = ReadOptions(chunk_rows=500)
    schema = pa.schema([("k", pa.int64()), ("lat", pa.float64()), ("lon", pa.float64())])
    found: list[tuple[float, float]] = []
    for number, chunk in enumerate(item.chunks(schema, options)):
        found += zip(*(chunk.batch.column(name).to_pylist() for name in ("lat", "lon")), strict=True)
        if number == 0:
            after_first()
    return found


def assert_of_one_content(item: Input, change: Callable[[], None] = lambda: None) -> None:
    try:
        found = read(item, change)
    except InputError:
        return
    assert len(found) == ROWS
    assert set(found) <= {(10.5, 99.5)}, "what was planned is what is read"


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_before_its_turn_is_read_as_it_was_or_not_at_all(
    tmp_path: Path, kind: str, change: Callable[[Path], None]
) -> None:
    path = tmp_path / f"x.{kind}"
    write(path, old_rows())
    item = opened(path)
    change(path)
    assert_of_one_content(item)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_while_it_is_read_is_no_mix_of_two(
    tmp_path: Path, kind: str, change: Callable[[Path], None]
) -> None:
    path = tmp_path / f"x.{kind}"
    write(path, old_rows())
    assert_of_one_content(opened(path), lambda: change(path))


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_file_that_is_touched_renamed_and_removed_while_it_is_read_is_read_to_its_end(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"x.{kind}"
    write(path, old_rows())

    def act() -> None:
        path.touch()
        path.rename(path.with_name("done"))
        path.with_name("done").unlink()

    assert read(opened(path), act) == [(10.5, 99.5)] * ROWS


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_of_a_file_that_grows_what_was_there_is_loaded(tmp_path: Path, kind: str) -> None:
    """Before its turn, and between two chunks; the next command loads the rest."""
    path = tmp_path / f"x.{kind}"
    write(path, old_rows())
    more = path.read_bytes().splitlines(keepends=True)[-1]

    def grow() -> None:
        with path.open("ab") as file:
            file.write(more)

    item = opened(path)
    grow()
    assert len(read(item, grow)) == ROWS
    assert len(read(opened(path))) == ROWS + 2


@pytest.mark.parametrize("before", [True, False], ids=["before its turn", "while it is read"])
@pytest.mark.parametrize("changed_at", [0, 1000, ROWS // 2, ROWS - 1])
def test_one_number_that_is_changed_in_place_is_noticed(tmp_path: Path, changed_at: int, before: bool) -> None:
    """What is read is the file as it was or as it is, never a bit of both."""
    path = tmp_path / "x.csv"
    write(path, old_rows())
    place = path.read_bytes().index(f"\n{changed_at},10.5".encode()) + len(f"\n{changed_at},")
    item = opened(path)

    def change() -> None:
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"77.7")

    if before:
        change()
    elif changed_at > ROWS // 4 and changed_at < ROWS - 1:
        found = read(item, change)
        assert found == [(77.7 if k == changed_at else 10.5, 99.5) for k in range(ROWS)]
        return
    with pytest.raises(InputChangedError, match="the file changed"):
        read(item, change)


def files_of(folder: Path) -> Path:
    """Ten files, of which the last has its turn when others are in the table."""
    for number in range(10):
        first = 1000 * number
        rows = "".join(f"{k},10.5,99.5\n" for k in range(first, first + 1000))
        (folder / f"f{number}.csv").write_text("k,lat,lon\n" + rows)
    return folder / "f9.csv"


@pytest.fixture(params=[128, 0], ids=["held", "many files"])
def most_held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Up to so many files stay open from the beginning."""
    monkeypatch.setattr("headrace.reading.files._MOST_HELD", request.param)
    return int(request.param)


@pytest.mark.parametrize("change", [replaced, rewritten, removed], ids=lambda change: change.__name__)
def test_a_load_whose_last_file_changes_before_its_turn_swaps_no_values(
    tmp_path: Path, store_url: str, change: Callable[[Path], None], most_held: int
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    last = files_of(folder)

    class Change(Silent):
        done = False

        def committed(self, piece: object, done: object) -> None:
            if not self.done:
                self.done = True
                change(last)
                last.with_name("new.csv").unlink(missing_ok=True)

    options = options_of({"to": store_url, "table": "ev", "id": ["k"], "chunk_rows": 100})
    swapped = "SELECT count(*) FROM ev WHERE lat > 90 OR lon < 90"
    try:
        report = load_with(options, [str(folder / "f*.csv")], listener=Change())
    except InputError:
        assert change is rewritten or not most_held
    else:
        assert report.inserted == 10_000
    assert Headrace(store_url, tmp_path).query(swapped) == [(0,)]
    if change is not removed:
        assert hr.load(str(folder / "f*.csv"), to=store_url, table="ev", id=["k"]).rejected == 0


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_pipe_is_read_once_and_whole(tmp_path: Path, sqlite_url: str, kind: str) -> None:
    """What a sample takes from a pipe is not there for the load."""
    plain, pipe = tmp_path / f"y.{kind}", tmp_path / f"x.{kind}"
    write(plain, old_rows(30_000))
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(plain.read_bytes()))
    feeder.start()
    report = hr.load(str(pipe), to=sqlite_url, table="ev", id=["k"])
    feeder.join()
    assert report.inserted == 30_000


def test_a_reject_is_looked_up_in_the_file_that_was_read(tmp_path: Path, sqlite_url: str) -> None:
    path = tmp_path / "x.csv"
    write(path, old_rows(1000))
    path.write_bytes(path.read_bytes() + b"bad,1,2\n")
    options = ReadOptions(types={"k": "integer"})
    (item,) = open_inputs([str(path)], options, None)
    chunks = list(item.chunks(item.infer(options), options))
    (reject,) = [reject for chunk in chunks for reject in chunk.rejects]
    replaced(path)
    assert reject.row is not None
    assert item.locate([reject.row]) == {1000: (1002, "bad,1,2")}


# A last record that may be cut ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_a_last_line_without_an_end_is_not_loaded_while_somebody_writes_it(
    headrace: Headrace, tmp_path: Path, kind: str
) -> None:
    whole = {
        "csv": "k,v\n1,12.34\n2,12.34\n",
        "tsv": "k\tv\n1\t12.34\n2\t12.34\n",
        "jsonl": '{"k":1,"v":12.34}\n{"k":2,"v":12.34}\n',
    }
    path = tmp_path / f"x.{kind}"
    with path.open("w") as file:
        file.write(whole[kind][:-2])
        file.flush()
        failed = headrace.run("load", path, "--table", "ev", "--id", "k", expect=1)
        assert "still being written" in failed.stderr
        file.write(whole[kind][-2:])
    headrace.load(path, "--table", "ev", "--id", "k")
    assert headrace.query("SELECT k, v FROM ev ORDER BY k") == [(1, 12.34), (2, 12.34)]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_writer_that_opens_the_file_for_each_bit_shows_itself_by_time(
    tmp_path: Path, sqlite_url: str, kind: str
) -> None:
    text_ = {"csv": "k,v\n1,12.34\n2,12.34\n", "jsonl": '{"k":1,"v":12.34}\n{"k":2,"v":12.34}\n'}[kind]
    path = tmp_path / f"x.{kind}"
    path.write_text(text_[:-2])

    def go_on() -> None:
        with path.open("a") as file:
            file.write(text_[-2:])

    writer = threading.Timer(0.3, go_on)
    writer.start()
    with pytest.raises(InputError, match="still being written"):
        hr.load(str(path), to=sqlite_url, table="ev", id=["k"])
    writer.join()
    assert hr.load(str(path), to=sqlite_url, table="ev", id=["k"]).inserted == 2


@pytest.mark.parametrize("text_", ["k,v\n1,12.34", "k,v\r\n1,12.34\r\n", "k\n1"])
def test_a_file_that_nobody_writes_to_needs_no_end_of_its_last_line(
    tmp_path: Path, sqlite_url: str, text_: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text_.encode())
    assert hr.load(str(path), to=sqlite_url, table="ev").inserted == 1


def test_a_file_that_grows_by_the_bit_never_gives_a_cut_record(tmp_path: Path, sqlite_url: str) -> None:
    """A writer that flushes wherever its buffer ends, opened anew for each block; a load again and again."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance, path = random.Random(seed), tmp_path / "x.csv"
    body = b"k,v\n" + b"".join(b"%d,12.34\n" % k for k in range(4000))
    done = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            at = 0
            while at < len(body):
                size = chance.randrange(1, 3000)
                file.write(body[at : at + size])
                at += size
                time.sleep(0.01)
        done.set()

    writer = threading.Thread(target=grow)
    path.write_bytes(b"")
    writer.start()
    while not done.is_set():
        try:
            hr.load(str(path), to=sqlite_url, table="ev", id=["k"], types={"v": "float"})
        except InputError:
            time.sleep(0.01)
    writer.join()
    report = hr.load(str(path), to=sqlite_url, table="ev", id=["k"])
    assert report.inserted + report.duplicate_in_store == 4000
    assert Headrace(sqlite_url, tmp_path).query("SELECT count(*) FROM ev WHERE v <> 12.34") == [(0,)]

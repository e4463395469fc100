"""The command line's own promises: exit codes, streams, verify, explain, runs, doctor, inputs of every kind."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from support.program import Headrace
from typer.main import get_command

from headrace.cli.main import app

CSV = "n,at\n" + "".join(f"{n},2020-01-01T00:00:{n:02}Z\n" for n in range(10))
OPTIONS = ("--table", "t", "--id", "n,at", "--time", "at")
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def loaded(headrace: Headrace) -> Headrace:
    (headrace.folder / "t.csv").write_text(CSV)
    headrace.load("t.csv", *OPTIONS)
    return headrace


def test_results_go_to_stdout_and_progress_to_stderr(headrace: Headrace) -> None:
    (headrace.folder / "t.csv").write_text(CSV)
    quiet = headrace.run("load", "t.csv", "--output", "json")
    assert not quiet.stderr
    fields = "run_id mode strategy workers chunks read inserted duplicate_in_input duplicate_in_store rejected seconds"
    assert {*fields.split(), "rows_per_second"} <= set(json.loads(quiet.stdout))
    told = headrace.run("load", "t.csv", "--output", "json", "--progress", "json")
    assert json.loads(told.stdout)["read"] == 10
    assert json.loads(told.stderr.splitlines()[-1])["read"] == 10
    assert "10 rows" in headrace.run("load", "t.csv", "--progress", "plain").stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["load", "missing.csv"], 1, "missing.csv"),
        (["load", "*.nothing"], 1, "nothing"),
        (["load", "t.csv", "--to", "mysql://host/db"], 2, "mysql"),
        (["load", "t.csv", "--window", "soon"], 2, "soon"),
        (["load", "t.csv", "--id", "nope"], 2, "nope"),
        (["load", "t.csv", "--select", "SELECT nope FROM source"], 2, "nope"),
        (["load"], 2, ""),
        (["explain", "no-uuid"], 2, "no-uuid"),
        (["explain", "00000000-0000-8000-8000-000000000000"], 1, "no event"),
    ],
)
def test_what_goes_wrong_is_said_with_its_exit_code(loaded: Headrace, words: list[str], code: int, says: str) -> None:
    failed = loaded.run(*words, expect=code)
    assert says in failed.stderr
    assert "Traceback" not in failed.stderr


def test_verify_finds_what_is_missing_unexpected_and_foreign(loaded: Headrace) -> None:
    (loaded.folder / "other.csv").write_text(CSV.replace("2020", "2021"))
    loaded.load("other.csv", *OPTIONS)
    loaded.run("verify", "t.csv", "--table", "t")
    loaded.query("DELETE FROM t WHERE n = 3 AND at < '2020-12-31'")
    found = loaded.json("verify", "t.csv", "--table", "t", expect=4)
    assert (found["missing"], found["unexpected"], found["duplicated"]) == (1, 0, 0)
    assert found["missing_sample"][0]["place"] == {"source": "t.csv", "rows": [0, 9], "row": 3, "line": 5}
    loaded.load("t.csv", *OPTIONS)
    loaded.run("verify", "t.csv", "--table", "t")
    digits = "00000000000080008000000000000001"
    strange = f"x'{digits}'" if "sqlite" in loaded.url else f"'{digits}'"
    row = f"SELECT {strange}, 99, 'default', min(headrace_receipt) FROM t"  # noqa: S608 - nothing here is input
    loaded.query(f"INSERT INTO t (event_id, n, provider, headrace_receipt) {row}")
    assert loaded.json("verify", "t.csv", "--table", "t", expect=4)["unexpected"] == 1


def test_explain_says_which_run_file_and_rows_brought_an_event(loaded: Headrace) -> None:
    run = loaded.json("runs", "list")["runs"][0]
    (packed,) = loaded.query("SELECT event_id FROM t WHERE n = 4")[0]
    event_id = packed.hex() if isinstance(packed, bytes) else str(packed)
    story = loaded.json("explain", event_id)
    assert (story["source"], story["first_row"], story["rows"]) == ("t.csv", 0, 10)
    assert story["run_id"] == run["run_id"]
    assert story["event"]["n"] == 4
    assert "t.csv, rows 0-9" in loaded.run("explain", event_id).stdout


def test_runs_show_the_receipts(loaded: Headrace) -> None:
    (run,) = loaded.json("runs", "list")["runs"]
    assert (run["status"], run["inserted"]) == ("done", 10)
    assert len(loaded.json("runs", "show", run["run_id"][:8])["receipts"]) == 1
    loaded.run("runs", "show", "ffff", expect=2)


def test_doctor_says_what_is_wrong_and_what_to_do(loaded: Headrace) -> None:
    assert "unique key on event_id" in loaded.run("doctor").stdout
    ill = Headrace("postgresql://nobody:canary@localhost:1/none", loaded.folder).run("doctor", expect=1)
    assert "FAILED" in ill.stdout
    assert "canary" not in ill.stdout + ill.stderr


def test_a_command_that_only_looks_makes_no_database(headrace: Headrace, tmp_path: Path) -> None:
    for words in (["runs", "list"], ["rejects", "list"], ["doctor"], ["explain", "0" * 32], ["verify", "t.csv"]):
        done = Headrace(f"sqlite:///{tmp_path / 'none.db'}", headrace.folder)
        (headrace.folder / "t.csv").write_text(CSV)
        failed = done.run(*words, expect=1 if words == ["doctor"] else 2)
        assert "no such database" in failed.stdout + failed.stderr
        assert not (tmp_path / "none.db").exists()


def test_a_password_is_never_shown(headrace: Headrace) -> None:
    (headrace.folder / "t.csv").write_text(CSV)
    lost = Headrace("postgresql://loader:canary@localhost:1/none", headrace.folder).run("load", "t.csv", expect=1)
    assert "canary" not in lost.stdout + lost.stderr
    assert "localhost" in lost.stderr


def test_every_kind_of_file_gives_the_same_events(headrace: Headrace) -> None:
    folder = headrace.folder
    rows = [{"n": n, "at": f"2020-01-01T00:00:{n:02}Z"} for n in range(10)]
    features = [{"type": "Feature", "properties": row, "geometry": None} for row in rows]
    (folder / "a.csv").write_text(CSV)
    (folder / "b.tsv").write_text(CSV.replace(",", "\t"))
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "d.json").write_text(json.dumps(rows))
    (folder / "e.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    (folder / "f.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    with pa.CompressedOutputStream(str(folder / "g.csv.zst"), "zstd") as stream:
        stream.write(CSV.encode())
    times = pa.array([row["at"] for row in rows]).cast(pa.timestamp("us", tz="UTC"))
    pa.parquet.write_table(pa.table({"n": list(range(10)), "at": times}), folder / "h.parquet")
    select = ("--select", 'SELECT n, "at" FROM source')
    assert headrace.load("a.csv", *OPTIONS)["inserted"] == 10
    for name in ("b.tsv", "c.jsonl", "d.json", "e.geojson", "f.csv.gz", "g.csv.zst", "h.parquet"):
        report = headrace.load(name, *OPTIONS, *(select if name == "e.geojson" else ()))
        assert (report["duplicate_in_store"], report["rejected"]) == (10, 0), name
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x.csv").write_text(CSV)
    (folder / "deep" / "y.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert headrace.load("deep", *OPTIONS)["duplicate_in_input"] == 10
    (folder / "deep" / "z.jsonl").write_text("{}")
    assert "mixes formats" in headrace.run("load", "deep", *OPTIONS, expect=2).stderr
    assert headrace.load("[ab].?sv", *OPTIONS)["read"] == 20
    done = headrace.run("load", "-", "--format", "csv", *OPTIONS, "--output", "json", stdin=CSV.encode())
    assert json.loads(done.stdout)["duplicate_in_store"] == 10


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_urls_are_loaded_and_a_missing_one_is_an_error(headrace: Headrace, website: str) -> None:
    (headrace.folder / "feed.csv").write_text(CSV)
    assert headrace.load(f"{website}/feed.csv", "--id", "n")["table"] == "feed"
    assert "404" in headrace.run("load", f"{website}/none.csv", expect=1).stderr


def test_every_command_and_option_has_help_with_an_example_and_is_documented() -> None:
    written = "".join(page.read_text() for page in DOCS.glob("*.md"))
    for path, command in commands(get_command(app), "headrace"):
        assert path in written.replace("`, `", " "), f"{path} is not in docs/"
        assert command.help, path
        assert "Example: headrace" in (command.epilog or ""), path
        for option in command.params:
            for flag in (name for name in option.opts if name.startswith("--")):
                assert flag in written, f"{path} {flag} is not in docs/"


def commands(group: object, path: str) -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command

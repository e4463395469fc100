"""A password given to Headrace shows nowhere: in no argument list, log, traceback, report, table or file."""

from __future__ import annotations

import ast
import glob
import os
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.evidence import Record, keep
from support.feeds import Answer, feeds_server
from support.program import Headrace

import headrace
import headrace.storage
from headrace.execution.crew import _sent
from headrace.execution.tasks import TaskOutcome
from headrace.options.load import options_of
from headrace.reading.input_spool import spool_stdin
from headrace.runtime.parcel import packer

CANARY = "c4n4ry-0f-the-m1ne"
LOAD = ("load", "a.csv", "--table", "t", "--id", "n", "--type", "n=integer")


@pytest.fixture
def secretive(postgres_url: str, tmp_path: Path) -> Headrace:
    """A PostgreSQL that takes any password, asked for with the canary."""
    (tmp_path / "a.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(40_000)) + "x\n")
    return Headrace(str(sa.make_url(postgres_url).set(password=CANARY).render_as_string(hide_password=False)), tmp_path)


def arguments() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # gone meanwhile
            continue


def leaks(shown: list[str], of: str, where: str) -> list[str]:
    """What stands around each canary. Each text looked at is a try, and kept as evidence."""
    found = [(one, one.find(CANARY)) for one in shown]
    leaked = [one[max(0, at - 300) : at + 100] for one, at in found if at >= 0]
    keep(Record(f"a password: {of}", "in what is said and kept", where, len(shown), 0, 0, len(leaked), 0, 0))
    return leaked


def watched(load: subprocess.Popen[str]) -> list[str]:
    """What `load` said, and every argument list that there was meanwhile, those of its workers among them."""
    seen: set[str] = set()
    while load.poll() is None:
        seen |= set(arguments())
    assert any("forkserver" in one or "spawn" in one for one in seen), "no worker was seen"
    return [load.communicate()[0], *seen]


def test_the_databases_password_shows_nowhere(secretive: Headrace) -> None:
    shown = []
    load = subprocess.Popen(
        secretive.command(*LOAD, "--mode", "parallel", "--workers", "2", "--chunk-rows", "2000", "--progress", "plain"),
        env=secretive.environment() | {"PYTHONDEVMODE": "1"},
        cwd=secretive.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    shown += watched(load)
    assert load.returncode == 3
    (run,) = secretive.json("runs", "list")["runs"]
    for words in (
        ["doctor"],
        ["runs", "show", run["run_id"]],
        ["rejects", "list"],
        ["verify", *LOAD[1:]],
        ["load", "a.csv", "--table", "t", "--id", "m"],
    ):
        done = subprocess.run(
            secretive.command(*words),
            env=secretive.environment(),
            cwd=secretive.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        shown += [done.stdout, done.stderr]
    for table in ("runs", "receipts", "rejects", "contracts"):
        shown.append(repr(secretive.query(f"SELECT * FROM headrace_{table}")))  # noqa: S608
    shown += [path.read_text(errors="replace") for path in secretive.folder.rglob("*") if path.is_file()]
    assert not leaks(shown, "the database's", "postgresql, parallel")


CONFIGURED = """
database = "{database}"
[defaults]
id = ["n"]
types = {{ n = "integer" }}
[providers.fine]
url = "http://u:{canary}@{host}/fine.csv?key={canary}"
headers = {{ Authorization = "Bearer {canary}" }}
[providers.gone]
url = "{url}/gone.csv?token={canary}"
[providers.bad]
url = "{url}/bad.csv"
headers = {{ X-Key = "{canary}" }}
enrich = "leaky:enrich"
[providers.leaky]
function = "leaky:source"
"""
LEAKY = """
import tomllib
def source():
    raise ValueError("no access for " + tomllib.load(open("headrace.toml", "rb"))["database"])
def enrich(events):
    raise ValueError("no access for " + tomllib.load(open("headrace.toml", "rb"))["database"])
"""


@pytest.mark.slow
def test_what_the_configuration_holds_shows_nowhere(secretive: Headrace) -> None:
    """Passwords of the database and of feeds, written into ``headrace.toml``: workers, logs, failures, tables."""
    folder = secretive.folder
    (folder / "leaky.py").write_text(LEAKY)
    environment = {**os.environ, "PYTHONDEVMODE": "1", "ENABLE_PARALLEL_CHUNK_PROCESSING": "true"}
    environment.pop("HEADRACE_DATABASE_URL", None)
    shown = []
    with feeds_server() as feeds:
        host = feeds.url.removeprefix("http://")
        text = CONFIGURED.format(database=secretive.url, host=host, url=feeds.url, canary=CANARY)
        (folder / "headrace.toml").write_text(text)
        body = (folder / "a.csv").read_bytes()
        feeds.answers = {"/fine.csv": Answer(body), "/bad.csv": Answer(b"n\n1\n")}
        for words, codes in (
            (["run", "--log-level", "debug"], {1}),
            (["run", "--force", "--log-level", "debug", "--log-format", "json", "--output", "json"], {1}),
            (["doctor", "--config", "headrace.toml"], {0, 1}),
        ):
            process = subprocess.Popen(
                secretive.command(*words),
                env=environment,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            said = watched(process) if words[0] == "run" else [process.communicate()[0]]
            assert process.returncode in codes, said[0]
            shown += said
    for table in ("runs", "receipts", "rejects", "contracts", "providers"):
        shown.append(repr(secretive.query(f"SELECT * FROM headrace_{table}")))  # noqa: S608
    assert secretive.query_one_if_table("fine", "SELECT count(*) FROM fine") == 40_000, shown[0]
    (folder / "headrace.toml").unlink()
    shown += [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    assert not leaks(shown, "in headrace.toml", "postgresql, headrace run")


@pytest.mark.parametrize(
    "text",
    [
        'databse = "postgresql://u:{}@h/d"\n',
        'database = ["postgresql://u:{}@h/d"]\n',
        'database = "postgresql://u:{}@h:port/d"\n[providers.p]\npath = "p.csv"\n',
        '[providers.p]\nurl = "http://u:{}@[h/x"\n',
        '[providers.p]\nurl = "http://h/x"\nheaders = {{ A = "{}\\u0000" }}\n',
        '[providers.p]\nurl = "http://h/x"\nheaders = "{}"\n',
        'database = "postgresql://u:{}@h/d\n',
    ],
)
def test_a_configuration_that_is_refused_is_not_repeated_with_its_password(tmp_path: Path, text: str) -> None:
    (tmp_path / "headrace.toml").write_text(text.format(CANARY))
    done = Headrace("", tmp_path).run("run", expect=1 if "u0000" in text else 2)
    assert not leaks([done.stdout, done.stderr], "in a headrace.toml that is refused", "headrace run")


UNREADABLE = [
    f"postgresql://u:{CANARY}@127.0.0.1:1/d",
    f"postgresql://u:{CANARY}@127.0.0.1:port/d",
    f"postgresql://127.0.0.1:1/d?user=u&password={CANARY}",
    f"postgresql://u:{CANARY}@/d?host=/nowhere",
    f"postgresql://u:{CANARY}@[::1/d",
    f"mysql://u:{CANARY}@127.0.0.1/d",
    f"nosuch+thing://u:{CANARY}@127.0.0.1/d",
    f"postgresql+{CANARY}",
]


@pytest.mark.parametrize("url", UNREADABLE)
def test_a_url_that_fails_is_not_repeated_with_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(headrace.HeadraceError) as raised:
        headrace.load([{"v": 1}], to=url, table="t")
    told = "".join(traceback.format_exception(raised.value)) if "://" in url else str(raised.value)
    assert not leaks([told, repr(options_of({"to": url}))], "in a URL that fails", "headrace.load")


@pytest.mark.parametrize(
    "words",
    [
        {"locks": f"redis://:{CANARY}@127.0.0.1:1/0", "mode": "parallel", "strategy": "locked"},
        {"locks": f"nonsense://:{CANARY}@127.0.0.1:1/0", "mode": "parallel", "strategy": "locked"},
        {"executor": f"nonsense://u:{CANARY}@127.0.0.1:1", "mode": "parallel"},
    ],
    ids=["redis", "no redis", "no executor"],
)
def test_other_services_passwords_are_not_repeated(sqlite_url: str, words: dict[str, object]) -> None:
    pool = ThreadPoolExecutor(1)
    with pool, pytest.raises(headrace.HeadraceError) as raised:
        headrace.load([{"v": 1}], to=sqlite_url, table="t", **{"executor": pool, **words})  # type: ignore[arg-type]
    told = "".join(traceback.format_exception(raised.value))
    assert not leaks([told], "of Redis or a cluster", "headrace.load")


def test_the_key_of_the_hash_shows_nowhere(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HASH_KEY", CANARY)
    report = headrace.load([{"v": 1}], to=sqlite_url, table="t", hash="blake2b")
    files = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not leaks([repr(report), *files], "the hash's key", "sqlite, sequential")


def keep_private(where: str, files: int, open_to_others: int) -> None:
    keep(Record("a temporary file that others can read", "during the load", where, files, 0, 0, open_to_others, 0, 0))


def test_spooled_files_are_private_whatever_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0)
    try:
        packer(tmp_path)(headrace_batch())
        _sent(TaskOutcome(result=b"x" * 1_000_000), tmp_path)
        with (tmp_path / "in").open("w+") as stream:
            stream.write("a,b\n1,2\n")
            stream.seek(0)
            monkeypatch.setattr(sys, "stdin", stream)
            spool_stdin(tmp_path / "spool")
        (tmp_path / "in").unlink()
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    keep_private(
        "spool, parcels, outcomes", len(files), sum(stat.S_IMODE(one.stat().st_mode) != 0o600 for one in files)
    )
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a path short enough for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="hr-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def headrace_batch() -> object:
    import pyarrow as pa  # noqa: PLC0415 - this test alone makes one

    return pa.record_batch({"a": [1, 2, 3]})


def test_all_that_a_load_leaves_on_disk_meanwhile_is_private(sqlite_url: str, scratch: Path) -> None:
    """Folders 0700, files 0600, for the spool of standard input, parcels and ID files: watched while it works."""
    text = "n,v\n" + "".join(f"{n},x\n" for n in range(60_000))
    words = ["load", "-", "--table", "t", "--id", "n", "--mode", "parallel", "--workers", "2", "--chunk-rows", "3000"]
    load = subprocess.Popen(
        ["/bin/sh", "-c", 'umask 0; exec "$0" "$@"', sys.executable, "-m", "headrace", *words],
        env={**os.environ, "TMPDIR": str(scratch), "HEADRACE_DATABASE_URL": sqlite_url},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert load.stdin is not None
    load.stdin.write(text)
    load.stdin.close()
    open_to_others, kinds, names = set(), set(), set()
    while load.poll() is None:
        for folder, _, files in os.walk(scratch):
            for name in [folder, *(os.path.join(folder, one) for one in files)]:  # noqa: PTH118 - as os.walk gives it
                try:
                    found = os.lstat(name)
                except FileNotFoundError:
                    continue
                if name != str(scratch):
                    kinds.add(Path(name).suffix)
                    names.add(name)
                    private = Path(name).parent != scratch or stat.S_IMODE(found.st_mode) == 0o700
                    wanted = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
                    if not private or (stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) != wanted):
                        open_to_others.add((name, oct(found.st_mode)))
    keep_private("parallel load of standard input", len(names), len(open_to_others))
    assert load.wait() == 0
    assert ".arrow" in kinds
    assert not open_to_others


def test_nothing_is_unpickled_but_what_a_worker_of_ours_wrote() -> None:
    """Two places, both fed by the pool's own pipe or its private folder; and no eval, exec, shell or YAML anywhere."""
    package = Path(headrace.storage.__file__).parents[1]
    found = set()
    # unlike Path.rglob, glob follows the links of an editable installation
    for path in glob.glob("**/*.py", root_dir=package, recursive=True):  # noqa: PTH207
        for node in ast.walk(ast.parse((package / path).read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called.endswith(("pickle.load", "pickle.loads", "Unpickler")):
                    found.add((path, called))
                assert called not in {"eval", "exec", "os.system", "yaml.load", "marshal.loads", "shelve.open"}, path
                assert not any(word.arg == "shell" for word in node.keywords), path
    assert found == {("execution/crew.py", "pickle.loads")}

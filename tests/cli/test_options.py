"""An option is declared once and found everywhere: command line, file, schema, Python, reference. How help looks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import option_tables
from support.program import Headrace
from typer.main import get_command
from typer.testing import CliRunner

import headrace
from headrace.cli.main import app
from headrace.errors import ConfigurationError
from headrace.options.declared import COMMAND, GROUPS, LOAD
from headrace.options.load import LoadOptions, ParallelOptions, options_of

PRETEND = """    pretend: Annotated[
        Format | None,
        Option(INPUT, LOADS, "providers", otherwise="whatever is pretended"),
        "An option for a test.",
    ]
"""
# what a program sees of an option that was added to the one place: each line is one of the five
LOOK = """
import json, sys
from pathlib import Path
import headrace
from headrace.options.load import options_of
from headrace.polling.config_file import read_settings
sys.path.insert(0, sys.argv[1])
from support.option_tables import in_the_reference, json_schema

def refused(what):
    try:
        what()
    except (headrace.HeadraceError, TypeError) as error:
        return str(error)

file = Path("headrace.toml")
file.write_text('[providers.p]\\npath = "p.csv"\\npretend = "no such"\\n')
print(json.dumps({
    "file": refused(lambda: read_settings(file)),
    "schema": json_schema()["properties"]["providers"]["additionalProperties"]["properties"].get("pretend"),
    "Python": refused(lambda: options_of({"pretend": "csv"})),
    "reference": in_the_reference("<!-- options: begin --><!-- options: end -->"),
}))
"""


def changed_package(folder: Path, addition: str) -> dict[str, str]:
    """The environment of a program that imports Headrace with `addition` in the one place."""
    shutil.copytree(Path(headrace.__file__).parent, folder / "headrace")
    declared = folder / "headrace" / "options" / "declared.py"
    source = declared.read_text()
    assert source.count("    format: Annotated[") == 1
    declared.write_text(source.replace("    format: Annotated[", addition + "    format: Annotated["))
    return {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "80"}


def looked_at(folder: Path, environment: dict[str, str]) -> tuple[str, dict[str, object]]:
    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)  # noqa: PLW1510
        assert done.returncode == 0, done.stderr
        return done.stdout

    told: dict[str, object] = json.loads(run("-c", LOOK, str(Path(__file__).parents[1])))
    return run("-m", "headrace", "load", "--help"), told


def test_an_option_that_is_added_in_one_place_is_found_in_all_five(tmp_path: Path) -> None:
    shown, told = looked_at(tmp_path, changed_package(tmp_path, PRETEND))
    section = shown.split("Input:")[1].split("Identity:")[0]
    assert "--pretend <csv|tsv|" in section
    assert "An option for a test." in section
    assert "[default: whatever is pretended]" in " ".join(section.split())
    assert "'no such' is not among its values; choose one of: csv, tsv" in str(told["file"])
    assert told["schema"] == {
        "enum": ["csv", "tsv", "json", "jsonl", "geojson", "parquet"],
        "description": "An option for a test.",
    }
    # the keyword is known, and nobody has written yet what becomes of it
    assert "unexpected keyword argument 'pretend'" in str(told["Python"])
    row = next(line for line in str(told["reference"]).splitlines() if "`pretend`" in line)
    assert row.endswith("| `pretend` | `[providers]` `pretend` | whatever is pretended | An option for a test. |")


def test_control_an_option_that_is_nowhere_declared_is_found_nowhere(tmp_path: Path) -> None:
    shown, told = looked_at(tmp_path, changed_package(tmp_path, ""))
    assert "pretend" not in shown
    assert "providers.p.pretend: there is no such key" in str(told["file"])
    assert told["schema"] is None
    assert "there is no option 'pretend'" in str(told["Python"])
    assert "pretend" not in str(told["reference"])


def test_what_is_published_is_what_is_declared() -> None:
    for path, text in option_tables.published().items():
        assert path.read_text() == text, f"{path}: run `python tests/support/option_tables.py`"


def test_control_a_row_that_was_changed_by_hand_is_seen() -> None:
    page = (option_tables.DOCS / "reference.md").read_text()
    assert option_tables.in_the_reference(page.replace("| `512MiB` |", "| `1GiB` |")) == page


def test_a_keyword_that_does_not_exist_is_refused_with_its_neighbour() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no option 'chunkrows'[^?]*did you mean chunk_rows"):
        headrace.load([{"n": 1}], table="t", chunkrows=10)  # type: ignore[call-arg]


def test_python_takes_texts_and_values_alike() -> None:
    texts = options_of({"memory": "1GiB", "lock_timeout": "1m", "task_timeout": "2h", "window": "1d"})
    values = options_of({"memory": 1 << 30, "lock_timeout": 60.0, "task_timeout": 7200.0, "window": texts.window})
    assert texts == values
    assert options_of({"window": None}).window is options_of({"window": "all"}).window is None


def test_no_options_are_the_defaults() -> None:
    assert options_of({}) == LoadOptions(to=options_of({}).to)
    assert options_of(dict.fromkeys(LOAD.keys() - {"window"})) == options_of({})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="0 workers"):
        ParallelOptions(workers=0)


# Help -----------------------------------------------------------------------------------------------------------


def commands(group: object, path: str = "") -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


EVERY_COMMAND = dict(commands(get_command(app)))


def shown(command: str) -> str:
    done = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "80"}, prog_name="headrace")
    assert done.exit_code == 0
    return done.output


def test_load_shows_the_ten_that_matter_first_and_then_each_group() -> None:
    titles = re.findall(r"^([A-Z][\w ]+):$", shown("load"), re.MULTILINE)
    assert titles == ["Arguments", "Most used", *GROUPS, "Help"]
    first = shown("load").split("Most used:")[1].split("\n\n")[0]
    assert len(re.findall(r"^  --", first, re.MULTILINE)) == 10


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_help_fits_on_80_columns(command: str) -> None:
    assert max(map(len, shown(command).splitlines())) <= 80


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_every_command_takes_these_alike(command: str) -> None:
    taken = {option.name: option.opts for option in EVERY_COMMAND[command].params}  # type: ignore[attr-defined]
    for name in ("output", "progress", "log_level", "log_format"):
        assert taken[name] == ["--" + name.replace("_", "-")]


def test_each_command_that_an_option_names_exists() -> None:
    named = {command for option in {**LOAD, **COMMAND}.values() for command in option.commands}
    assert named - {"every command"} <= EVERY_COMMAND.keys()


def test_help_does_not_load_what_a_load_needs() -> None:
    code = (
        "import sys\nfrom typer.main import get_command\nfrom headrace.cli.main import app\nget_command(app)\n"
        "print(sorted({'duckdb', 'pyarrow', 'numpy', 'sqlalchemy', 'pydantic', 'rich', 'concurrent.futures'} & "
        "set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Completion by the Tab key --------------------------------------------------------------------------------------

PROGRAM = Path(sys.executable).parent / "headrace"


def completed(shell: str, line: str) -> str:
    environment = {
        **os.environ,
        "_HEADRACE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_choices_are_completed(shell: str) -> None:
    assert {"run", "runs", "rejects"} <= set(re.findall(r"\w+", completed(shell, "headrace r")))
    options = completed(shell, "headrace load --lo")
    assert set(re.findall(r"--[\w-]+", options)) == {"--locks", "--lock-timeout", "--log-level", "--log-format"}
    assert set(re.findall(r"\w+", completed(shell, "headrace load --mode "))) >= {"sequential", "parallel"}


def test_a_completion_for_fish_is_one_line() -> None:
    for line in completed("fish", "headrace load --").splitlines():
        assert re.match(r"--[\w-]+\t\S", line), line


SCRIPTS = {
    "bash": "COMP_WORDS=(headrace load --strat); COMP_CWORD=2; _headrace_completion headrace; echo ${COMPREPLY[@]}",
    "zsh": "functions _headrace_completion",
    "fish": "complete --do-complete 'headrace load --strat'",
}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_each_shell_is_given_a_script_that_it_understands(shell: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    asked = {**environment, "_HEADRACE_COMPLETE": f"source_{shell}"}
    script = subprocess.run([PROGRAM], env=asked, capture_output=True, text=True, check=True).stdout
    assert f"_HEADRACE_COMPLETE=complete_{shell}" in script
    if shutil.which(shell) is None:
        return  # what the script asks for is tested above
    setup = "autoload -U compinit; compinit -u\n" if shell == "zsh" else ""
    words = [shell, "-c", f"{setup}{script}\n{SCRIPTS[shell]}"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert ("_HEADRACE_COMPLETE" if shell == "zsh" else "--strategy") in done.stdout


def test_the_shell_at_work_is_found(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    words = ["bash", "-c", f"{PROGRAM} --show-completion; true"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert "complete -o default -F _headrace_completion headrace" in done.stdout


# Progress and output of commands that had neither ---------------------------------------------------------------


def test_what_run_replay_and_discard_take_too(headrace: Headrace) -> None:
    (headrace.folder / "a.csv").write_text("n,v\n1,2\n2,x\n3,y\n")
    (headrace.folder / "headrace.toml").write_text(
        '[providers.p]\npath = "a.csv"\nid = ["n"]\ntypes = {v = "integer"}\n'
    )
    polled = headrace.run("run", "--progress", "json", expect=3)
    assert json.loads(polled.stderr.splitlines()[-1])["rejected"] == 2
    replayed = headrace.run("rejects", "replay", "1", "--set", "v=3", "--progress", "json")
    assert json.loads(replayed.stderr.splitlines()[-1])["inserted"] == 1
    discarded = headrace.run("rejects", "discard", "2", "--output", "json", "--log-format", "json")
    assert json.loads(discarded.stdout) == {"discarded": 1}

"""``headrace.toml``: what is read, what is refused and how it is said, the schema, and what is never shown."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from headrace.errors import ConfigurationError, concealed
from headrace.observability.command import Watching
from headrace.observability.narrator import Thresholds
from headrace.polling.config_file import Settings, read_settings
from headrace.polling.config_keys import PROVIDER, RUN

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCHEMA = json.loads((DOCS / "headrace.schema.json").read_text())


def read(folder: Path, text: str) -> Settings:
    file = folder / "headrace.toml"
    file.write_text(text)
    return read_settings(file)


def problems(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    return str(caught.value)


def test_the_published_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_example_is_valid_by_program_and_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_DATABASE_URL", raising=False)
    settings = read_settings(DOCS / "headrace.toml")
    assert [(one.name, one.active) for one in settings.providers] == [
        ("modis", True),
        ("quakes", True),
        ("buoys", False),
        ("archive", False),
        ("sensors", False),
    ]
    jsonschema.validate(tomllib.loads((DOCS / "headrace.toml").read_text()), SCHEMA)


MINIMAL = '[providers.p]\npath = "p.csv"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ["providers: there is no provider", "[providers.NAME]"]),
        ("[providers.p]\n", ["providers.p: it has no source", "url, path and function"]),
        (MINIMAL + 'url = "http://x"\n', ["providers.p: it has url and path"]),
        (MINIMAL + 'intervall = "5m"\n', ["providers.p.intervall", "did you mean interval?"]),
        (MINIMAL + 'interval = "soon"\n', ["providers.p.interval: 'soon' is not a time", "'5m'"]),
        (MINIMAL + "interval = 5\n", ["providers.p.interval: 5 is not a time"]),
        (MINIMAL + 'max_size = "big"\n', ["providers.p.max_size", "256MiB"]),
        (MINIMAL + 'active = "yes"\n', ["providers.p.active: 'yes' is not true or false"]),
        (MINIMAL + 'id = "key"\n', ["providers.p.id: 'key' is not a list of texts"]),
        (MINIMAL + 'hash = "md5"\n', ["providers.p.hash: 'md5'", "xxh3_128, blake2b"]),
        (MINIMAL + 'types = { a = "varchar" }\n', ["providers.p.types: the column a", "timestamp"]),
        (MINIMAL + 'enrich = "geo"\n', ["providers.p.enrich", "module:function"]),
        (MINIMAL + 'select = "${NOT_SET_ANYWHERE}"\n', ["NOT_SET_ANYWHERE is not set", "${NOT_SET_ANYWHERE:-…}"]),
        (MINIMAL + '[[providers.p.alerts]]\nname = "a"\n', ["a rule is either an SQL predicate or a function"]),
        (MINIMAL + "[[providers.p.alerts]]\nwhere = 'a > 1'\n", ["providers.p.alerts[0]: the rule has no name"]),
        ('[providers.p]\nurl = "file:///etc/passwd"\n', ["providers.p.url: this is not an address to fetch"]),
        ('[providers.p]\nurl = "ftp://x/y"\n', ["providers.p.url: this is not an address to fetch"]),
        ('[defaults]\npath = "x"\n' + MINIMAL, ["defaults.path: there is no such key"]),
        ("[parallel]\nworkers = 0\n" + MINIMAL, ["parallel.workers: 0 is not a whole number"]),
        ("[run]\nevry = '5m'\n" + MINIMAL, ["run.evry", "did you mean every?"]),
        ("providers = 3", ["providers: 3 is not a table"]),
        ("[providers\n", ["cannot be read", "line 1"]),
    ],
)
def test_what_is_wrong_is_said_with_file_key_and_cure(tmp_path: Path, text: str, says: list[str]) -> None:
    said = problems(tmp_path, text)
    assert said.startswith(str(tmp_path / "headrace.toml"))
    assert all(one in said for one in says), said


@pytest.mark.parametrize(
    "text", ["", "[providers.p]\n", MINIMAL + 'intervall = "5m"\n', MINIMAL + 'interval = "soon"\n']
)
def test_the_schema_refuses_it_too(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), SCHEMA)


def test_a_providers_name_that_no_index_can_hold_is_refused(tmp_path: Path) -> None:
    said = problems(tmp_path, f'[providers.{"n" * 1_001}]\npath = "p.csv"\n')
    assert "its name has more than 1,000 bytes" in said


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    said = problems(tmp_path, MINIMAL + 'a = 1\nb = 2\n[providers.q]\nurl = "x"\n')
    assert "3 keys are wrong" in said


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        read_settings(tmp_path / "none.toml")


def test_defaults_hold_where_a_provider_says_nothing(tmp_path: Path) -> None:
    text = '[defaults]\ninterval = "1h"\ntime = "at"\nwindow = "all"\n[providers.p]\npath = "p"\n'
    first, second = read(tmp_path, text + '[providers.q]\npath = "q"\ninterval = "2h"\ntable = "t"\n').providers
    assert (first.pace.interval, first.options.time, first.options.window, first.table) == (3600, "at", None, "p")
    assert (second.pace.interval, second.options.provider, second.table) == (7200, "q", "t")


def test_how_it_is_watched_stands_in_the_file_and_the_command_line_beats_it(tmp_path: Path) -> None:
    text = '[run]\nmetrics = ":9464"\nslow_provider = "10m"\nslow_query = "5s"\nkeep_alerts = "90d"\n'
    settings = read(tmp_path, text + MINIMAL)
    assert settings.keep_alerts == 90 * 86_400
    watching = Watching(slow_query="1s").or_else(settings.watching)
    assert (watching.metrics, watching.thresholds) == (":9464", Thresholds(600.0, None, 1.0))


def test_alerts_revisions_and_enrichment_are_handed_over(tmp_path: Path) -> None:
    more = 'revisions = "update"\nversion_column = "v"\nenrich = "geo:add"\non_error = "reject"\n'
    rules = (
        '[[providers.p.alerts]]\nname = "a"\nwhere = "x > 1"\n[[providers.p.alerts]]\nname = "b"\nfunction = "r:f"\n'
        "revisions = true\n"
    )
    options = read(tmp_path, MINIMAL + more + rules).providers[0].options
    assert [(rule.name, rule.where, rule.function, rule.revisions) for rule in options.alerts] == [
        ("a", "x > 1", None, False),
        ("b", None, "r:f", True),
    ]
    assert (options.revisions, options.version_column) == ("update", "v")
    assert options.enrichment is not None
    assert (options.enrichment.function, options.enrichment.on_error) == ("geo:add", "reject")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    source = read(tmp_path, MINIMAL).providers[0].source
    assert (source.target, source.shown) == (str(tmp_path / "p.csv"), "p.csv")


def test_secrets_are_filled_in_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEED_PASSWORD", "pass/word-1")
    monkeypatch.setenv("FEED_KEY", "key-in-the-path")
    monkeypatch.setenv("FEED_TOKEN", "token-in-a-header")
    text = """
    database = "postgresql://loader:db-secret-9@h/d"
    [providers.p]
    url = "https://user:${FEED_PASSWORD}@feed.example/${FEED_KEY}/x.csv?key=${FEED_KEY}&other=literal-query"
    headers = { Authorization = "Bearer ${FEED_TOKEN}", X-Key = "literal-header" }
    """
    settings = read(tmp_path, text)
    source = settings.providers[0].source
    assert "key-in-the-path" in source.target
    assert source.headers["Authorization"] == "Bearer token-in-a-header"
    assert source.shown == "https://feed.example/${FEED_KEY}/x.csv"
    secrets = ["pass/word-1", "key-in-the-path", "token-in-a-header", "literal-header", "db-secret-9"]
    for secret in secrets:
        assert secret not in repr(source)
        assert secret not in str(ConfigurationError(f"x {secret} y", where=secret, hint=secret))
    assert "pass%2Fword-1" not in concealed("https://u:pass%2Fword-1@h")


def test_values_of_every_kind_pass_program_and_schema_as_examples() -> None:
    keys = {name: key for name, key in {**PROVIDER, **RUN}.items() if name not in ("path", "function")}
    examples: dict[str, Any] = {name: key.choices[0] if key.choices else key.instance for name, key in keys.items()}
    for name, key in keys.items():
        key.check(examples[name])
    jsonschema.validate(
        {
            "providers": {"p": {name: examples[name] for name in PROVIDER if name in keys}},
            "run": {name: examples[name] for name in RUN},
        },
        SCHEMA,
    )

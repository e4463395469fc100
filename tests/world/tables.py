"""The world's acts on the table and the ledger: what neighbours, migrations and restores do, as plain SQL."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from world.database import EVENTS, LEDGER, Blocked, Postgres
from world.world import World, act

__all__: list[str] = []

POSTGRES = ("postgresql",)
SQLITE = ("sqlite",)


def _table(world: World, column: str | None = None) -> dict[str, str]:
    columns = world.database.columns(EVENTS)
    if not columns or (column is not None and column not in columns):
        raise Blocked(f"there is no {column or 'table'}")
    return columns


def _is_postgres(world: World) -> bool:
    return world.database.kind == "postgresql"


# Rows -----------------------------------------------------------------------------------------------------------


@act("tables", weight=6, draw=lambda chance: {"part": chance.choice((2, 3, 5)), "rest": chance.randrange(2)})
def delete_some(world: World, *, part: int, rest: int) -> None:
    _table(world)
    world.database.run(f"DELETE FROM {EVENTS} WHERE CAST(CAST(k AS TEXT) AS INTEGER) % {part} = {rest}")


@act("tables", weight=3)
def truncate(world: World) -> None:
    _table(world)
    world.database.run(f"TRUNCATE {EVENTS}" if _is_postgres(world) else f"DELETE FROM {EVENTS}")


@act("tables", weight=2, draw=lambda chance: {"part": chance.choice((2, 3, 5))})
def change_values(world: World, *, part: int) -> None:
    _table(world, "w")
    world.database.run(f"UPDATE {EVENTS} SET w = 'changed' WHERE CAST(CAST(k AS TEXT) AS INTEGER) % {part} = 0")


@act("tables", weight=1.5, draw=lambda chance: {"pick": chance.randrange(10_000)})
def insert_others(world: World, *, pick: int) -> None:
    """Another program's rows, under IDs of its own and no receipt."""
    columns = _table(world)
    id_ = f"'00000000-0000-8000-8000-{pick:012d}'" if _is_postgres(world) else f"x'{pick:032x}'"
    k = f"'{1000 + pick}'" if "char" in columns["k"] or "text" in columns["k"] else str(1000 + pick)
    world.database.run(
        f"INSERT INTO {EVENTS} (event_id, provider, k, headrace_receipt) VALUES ({id_}, 'neighbour', {k}, 0)"
    )


@act("tables", weight=1, hinders=True)
def change_ids(world: World) -> None:
    """Every row under an ID that no contract gives it. What a warm engine brings after it is told by no row."""
    _table(world)
    if world.engine is not None or world.service is not None or world.watch is not None:
        raise Blocked("a process is at work that has looked at the IDs")
    world.database.run(
        f"UPDATE {EVENTS} SET event_id = {'gen_random_uuid()' if _is_postgres(world) else 'randomblob(16)'}"
    )


# Tables ---------------------------------------------------------------------------------------------------------


@act("tables", weight=2)
def drop(world: World) -> None:
    _table(world)
    world.database.run(f"DROP TABLE {EVENTS}")


@act("tables", weight=2, draw=lambda chance: {"full": chance.random() < 0.5})
def rename_and_recreate(world: World, *, full: bool) -> None:
    """The table put aside, and an empty one of its shape in its place, or one that holds the same rows."""
    _table(world)
    if _is_postgres(world):
        swap = [f"ALTER TABLE {EVENTS} RENAME TO ev_old", f"CREATE TABLE {EVENTS} (LIKE ev_old INCLUDING ALL)"]
    else:
        made = world.database.query("SELECT sql FROM sqlite_master WHERE name = ? AND type = 'table'", [EVENTS])
        swap = [f"ALTER TABLE {EVENTS} RENAME TO ev_old", made[0]["sql"]]
    fill = [f"INSERT INTO {EVENTS} SELECT * FROM ev_old"] if full else []
    world.database.run("DROP TABLE IF EXISTS ev_old", *swap, *fill)


@act("tables", weight=3)
def keep_a_copy(world: World) -> None:
    """A dump of the table and of the ledger, to be restored later."""
    _copy(world, [EVENTS, *LEDGER])


def _copy(world: World, tables: list[str]) -> None:
    present = [table for table in tables if world.database.has(table)]
    if EVENTS not in present:
        raise Blocked("there is no table")
    world.database.run(*(f"DROP TABLE IF EXISTS keep_{table}" for table in tables))
    world.database.run(*(f"CREATE TABLE keep_{table} AS SELECT * FROM {table}" for table in present))
    world.copies["columns"] = {table: list(world.database.columns(table)) for table in present}


@act("tables", weight=3, draw=lambda chance: {"what": chance.choice(("table", "ledger", "both"))})
def restore(world: World, *, what: str) -> None:
    """The copy's rows take the place of what is there: of the table alone, of the ledger alone, or of both."""
    held: dict[str, list[str]] = world.copies.get("columns", {})
    wanted = [table for table in held if what == "both" or (table == EVENTS) == (what == "table")]
    if not wanted or not all(world.database.has(table) for table in wanted):
        raise Blocked("there is no copy, or nothing to restore it into")
    statements = []
    for table in wanted:
        columns = [name for name in held[table] if name in world.database.columns(table)]
        named = ", ".join(f'"{name}"' for name in columns)
        overriding = " OVERRIDING SYSTEM VALUE" if _is_postgres(world) else ""
        statements += [
            f"DELETE FROM {table}",
            f"INSERT INTO {table} ({named}){overriding} SELECT {named} FROM keep_{table}",
        ]
    world.database.run(*statements)


# Columns --------------------------------------------------------------------------------------------------------

TYPES = {
    # as wide as what Headrace makes, so that nothing but its meaning tells it apart
    "v": ("double precision", "double precision", "numeric(12,3)", "text", "integer"),
    "w": ("varchar(60)",),
    "ver": ("double precision", "text"),
    "k": ("text", "text", "numeric(38,0)", "integer"),
    "at": ("timestamp",),
}


def _draw_type(*columns: str) -> Callable[[random.Random], dict[str, Any]]:
    def draw(chance: random.Random) -> dict[str, Any]:
        column = chance.choice(columns)
        return {"column": column, "kind": chance.choice(TYPES[column])}

    return draw


def _alter(world: World, column: str, kind: str) -> None:
    _table(world, column)
    using = f"{column}::text::{kind}" if column != "at" else "at AT TIME ZONE 'UTC'"
    world.database.run(f"ALTER TABLE {EVENTS} ALTER COLUMN {column} TYPE {kind} USING {using}")


@act("tables", weight=5, draw=_draw_type("v", "v", "w", "ver"), stores=POSTGRES, hinders=True)
def alter_payload_type(world: World, *, column: str, kind: str) -> None:
    _alter(world, column, kind)


@act("tables", weight=4, draw=_draw_type("k", "k", "k", "at"), stores=POSTGRES, hinders=True)
def alter_identity_type(world: World, *, column: str, kind: str) -> None:
    _alter(world, column, kind)


@act("tables", weight=2, draw=_draw_type("v", "k"), stores=SQLITE, hinders=True)
def rebuild_with_other_type(world: World, *, column: str, kind: str) -> None:
    """SQLite's way of changing a type: the table is made anew and filled from the old one."""
    columns = _table(world, column)
    made = world.database.query("SELECT sql FROM sqlite_master WHERE name = ? AND type = 'table'", [EVENTS])[0]["sql"]
    was = columns[column].upper()
    kind = {"double precision": "DOUBLE", "text": "TEXT"}.get(kind, "BIGINT")
    names = ", ".join(name if name != column else f"CAST({name} AS {kind})" for name in columns)
    world.database.run(
        "DROP TABLE IF EXISTS ev_old",
        f"ALTER TABLE {EVENTS} RENAME TO ev_old",
        made.replace(f"{column} {was}", f"{column} {kind}").replace(f'"{column}" {was}', f"{column} {kind}"),
        f"INSERT INTO {EVENTS} SELECT {names} FROM ev_old",
        "DROP TABLE ev_old",
    )


@act("tables", weight=2, draw=lambda chance: {"name": chance.choice(("note", "x")), "default": chance.random() < 0.5})
def add_column(world: World, *, name: str, default: bool) -> None:
    if name in _table(world):
        raise Blocked("there is such a column")
    world.database.run(
        f"ALTER TABLE {EVENTS} ADD COLUMN {name} TEXT{' DEFAULT ' + chr(39) + 'd' + chr(39) if default else ''}"
    )


@act(
    "tables",
    weight=1,
    draw=lambda chance: {"kind": chance.choice(("serial", "always", "not null default"))},
    stores=POSTGRES,
)
def add_own_column(world: World, *, kind: str) -> None:
    """A column that the database fills: a number, a computed value, a default that may not be null."""
    if "own" in _table(world, "v"):
        raise Blocked("there is such a column")
    words = {
        "serial": "own bigserial",
        "always": "own bigint GENERATED ALWAYS AS IDENTITY",
        "not null default": "own text NOT NULL DEFAULT 'd'",
    }[kind]
    world.database.run(f"ALTER TABLE {EVENTS} ADD COLUMN {words}")


@act("tables", weight=1.5, draw=lambda chance: {"column": chance.choice(("v", "w", "ver"))}, hinders=True)
def drop_column(world: World, *, column: str) -> None:
    _table(world, column)
    world.database.run(f"ALTER TABLE {EVENTS} DROP COLUMN {column}")


# Keys -----------------------------------------------------------------------------------------------------------


@act(
    "tables",
    weight=1.5,
    draw=lambda chance: {"by": chance.choice(("nothing", "invalid", "partial", "deferrable", "index"))},
    stores=POSTGRES,
    hinders=True,
)
def replace_the_key(world: World, *, by: str) -> None:
    _table(world)
    found = world.database.query(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'public.ev'::regclass AND contype IN ('p', 'u')"
    )
    dropped = [f'ALTER TABLE {EVENTS} DROP CONSTRAINT "{one["conname"]}"' for one in found]
    made = {
        "nothing": [],
        "invalid": [f"CREATE UNIQUE INDEX ev_key ON {EVENTS} (event_id)"],
        "partial": [f"CREATE UNIQUE INDEX ev_key ON {EVENTS} (event_id) WHERE provider = 'p'"],
        "deferrable": [f"ALTER TABLE {EVENTS} ADD CONSTRAINT ev_key UNIQUE (event_id) DEFERRABLE INITIALLY DEFERRED"],
        "index": [f"CREATE UNIQUE INDEX ev_key ON {EVENTS} (event_id)"],
    }[by]
    world.database.run("DROP INDEX IF EXISTS ev_key", *dropped, *made)
    if by == "invalid" and isinstance(world.database, Postgres):
        # as CREATE UNIQUE INDEX CONCURRENTLY leaves it where it failed
        world.database.command(
            "UPDATE pg_index SET indisvalid = false, indisready = false WHERE indexrelid = 'ev_key'::regclass"
        )


@act("tables", weight=1, draw=lambda chance: {"column": chance.choice(("v", "w"))}, hinders=True)
def other_unique_key(world: World, *, column: str) -> None:
    _table(world, column)
    world.database.run(f"DELETE FROM {EVENTS}", f"CREATE UNIQUE INDEX ev_{column} ON {EVENTS} ({column})")


# Triggers and row security ---------------------------------------------------------------------------------------

BODIES = {
    "audit": ("AFTER", "INSERT INTO ev_audit VALUES (NEW.k::text); RETURN NULL;"),
    "stamp": ("BEFORE", "NEW.stamp = 'stamped'; RETURN NEW;"),
    "swallow": ("BEFORE", "IF NEW.k::text::bigint % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW;"),
    "redirect": (
        "BEFORE",
        "IF NEW.k::text::bigint % 2 = 0 THEN INSERT INTO ev_audit VALUES (NEW.k::text); RETURN NULL; END IF; "
        "RETURN NEW;",
    ),
    "new id": ("BEFORE", "NEW.event_id = gen_random_uuid(); RETURN NEW;"),
}


@act("tables", weight=3, draw=lambda chance: {"kind": chance.choice([*sorted(BODIES), "swallow"])}, hinders=True)
def trigger(world: World, *, kind: str) -> None:
    _table(world, "w")
    stamped = [] if world.database.has_column(EVENTS, "stamp") else [f"ALTER TABLE {EVENTS} ADD COLUMN stamp TEXT"]
    if _is_postgres(world):
        when, body = BODIES[kind]
        world.database.run(
            *(stamped if kind == "stamp" else []),
            "CREATE TABLE IF NOT EXISTS ev_audit (k text)",
            f"CREATE OR REPLACE FUNCTION ev_moved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
            f"DROP TRIGGER IF EXISTS ev_t ON {EVENTS}",
            f"CREATE TRIGGER ev_t {when} INSERT ON {EVENTS} FOR EACH ROW EXECUTE FUNCTION ev_moved()",
        )
        return
    what = {
        "audit": "AFTER INSERT ON ev BEGIN INSERT INTO ev_audit VALUES (NEW.k); END",
        "swallow": "BEFORE INSERT ON ev WHEN NEW.k % 2 = 0 BEGIN SELECT RAISE(IGNORE); END",
        "stamp": "AFTER INSERT ON ev BEGIN UPDATE ev SET stamp = 'stamped' WHERE event_id = NEW.event_id; END",
    }.get(kind)
    if what is None:
        raise Blocked("SQLite's triggers cannot do that")
    made = [
        "CREATE TABLE IF NOT EXISTS ev_audit (k text)",
        "DROP TRIGGER IF EXISTS ev_t",
        f"CREATE TRIGGER ev_t {what}",
    ]
    world.database.run(*(stamped if kind == "stamp" else []), *made)


@act("tables", weight=1)
def drop_trigger(world: World) -> None:
    _table(world)
    world.database.run(f"DROP TRIGGER IF EXISTS ev_t{' ON ev' if _is_postgres(world) else ''}")


@act(
    "tables",
    weight=1,
    draw=lambda chance: {"kind": chance.choice(("sees half", "takes half"))},
    stores=POSTGRES,
    hinders=True,
)
def row_security(world: World, *, kind: str) -> None:
    _table(world)
    half = "(k::text::bigint % 2 = 0)"
    using, check = (half, "true") if kind == "sees half" else ("true", half)
    world.database.run(
        f"ALTER TABLE {EVENTS} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {EVENTS} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS half ON {EVENTS}",
        f"CREATE POLICY half ON {EVENTS} USING {using} WITH CHECK ({check})",
    )


@act("tables", weight=1, stores=POSTGRES)
def end_connections(world: World) -> None:
    """As a restart of the server does."""
    if isinstance(world.database, Postgres):
        with suppress(Blocked):
            world.database.end_connections()

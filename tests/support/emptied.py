"""A test's database made empty for the next test."""

from __future__ import annotations

import psycopg
from psycopg import sql

__all__ = ["emptied"]

SCHEMAS = """SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"""
LEFT = """SELECT count(*) FROM pg_database AS own WHERE datname = current_database() AND (
    datdba <> (SELECT oid FROM pg_roles WHERE rolname = current_user) OR NOT datallowconn OR datacl IS NOT NULL
    OR EXISTS (SELECT FROM pg_db_role_setting WHERE setdatabase = own.oid)
    OR EXISTS (SELECT FROM pg_extension WHERE extname <> 'plpgsql')
    OR EXISTS (SELECT FROM pg_event_trigger) OR EXISTS (SELECT FROM pg_publication)
    OR EXISTS (SELECT FROM pg_default_acl) OR EXISTS (SELECT FROM pg_largeobject_metadata)
    OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = own.datname))"""


def emptied(url: str) -> bool:
    """Whether the database at `url`, of a superuser, is as a new one: its sessions are ended, its schemas dropped.
    Nothing is done to a database of which more than that was changed.
    """
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            if connection.execute(LEFT).fetchone() != (0,):
                return False
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            for (name,) in connection.execute(SCHEMAS).fetchall():
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
            connection.execute("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
            connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
            return True
    except psycopg.Error:
        return False

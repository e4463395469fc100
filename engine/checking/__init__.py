"""Examines tables, ledger and inputs, and writes nothing."""

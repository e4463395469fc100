"""Looks at tables, ledger and inputs, and writes nothing."""

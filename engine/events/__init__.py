"""Turns rows into events: event IDs, enrichment, alert rules, revisions. It knows no processes."""

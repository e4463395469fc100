"""What becomes of a row: event ID, enrichment, alert rules, revisions. Knows no process."""

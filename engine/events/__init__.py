"""What becomes of a row: event ID, enrichment, alert rules, revisions. It knows no process."""

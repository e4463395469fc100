"""From whatever the user names to typed chunks and rejects. Knows no database and no event ID."""

"""From whatever the user names to typed chunks and rejects. It knows no database and no event ID."""

"""PostgreSQL: events by COPY, IDs packed by the server, statements in one message."""

"""Turns the inputs that the user names into typed chunks and rejects. It knows no database and no event IDs."""

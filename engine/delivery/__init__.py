"""Delivers alerts from the outbox to a receiver."""

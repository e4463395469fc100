"""Hears of a run and tells others: progress, metrics, traces, logs, pages. A run never waits for it."""

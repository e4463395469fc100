"""Reports on a run: progress, metrics, traces, logs, pages. A run never waits for it."""

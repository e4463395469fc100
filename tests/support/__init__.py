"""What several suites share, each module named for what it gives."""

"""Runs tasks: in this process, in a process pool, on a cluster. It decides nothing."""

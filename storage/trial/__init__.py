"""Trials: places beside the real tables in which a load is tried and measured."""

"""Inputs from elsewhere: downloads, the addresses that may be fetched from, streams kept in a file."""

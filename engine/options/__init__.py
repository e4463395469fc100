"""The options of a load, with their defaults and checks."""

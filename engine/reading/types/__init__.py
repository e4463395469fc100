"""The types of columns: told from a sample, cast strictly, refused in words."""

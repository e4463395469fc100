"""The types of columns: inferred from a sample, cast strictly, with a reason for each refused value."""

"""Everything that a load can be told, with its default and its checks."""

"""The command line: options, screen texts, exit codes. All printing is here."""

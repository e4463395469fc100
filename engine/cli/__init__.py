"""The command line: options, words on the screen, exit codes. All printing is here."""

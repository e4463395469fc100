"""``headrace run``: its configuration file, schedule, claims and rounds."""

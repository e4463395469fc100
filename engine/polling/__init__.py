"""``headrace run``: its file, its schedule, its claims, its rounds."""

"""The command line, and the API on a developer's machine."""

"""Exit statuses, and the exception that ends a command with one line on stderr."""

NO = 1
"""The command worked and its answer is negative: jobs failed, or a file is not current."""

FAILED = 2
"""The command failed: bad arguments, no access, no answer."""


class Failed(Exception):
    """The command cannot go on; the message is one line for the terminal."""

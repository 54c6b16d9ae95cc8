"""Exit statuses, and the exception that ends a command with one line on stderr."""

NO = 1
"""The command worked and its answer is negative: jobs failed, or a file is not current."""

FAILED = 2
"""The command failed: bad arguments, no access, no answer."""

STALLED = 3
"""The command gave up on a batch that had stalled."""


INTERRUPTED = 130
"""Ctrl-C, as a shell reports it."""


class Failed(Exception):
    """The command cannot go on; the message is one line for the terminal.

    Attributes:
        status: The exit status.
    """

    status = FAILED


class GaveUpStalled(Failed):
    """The batch was stalled for longer than the user wants to wait."""

    status = STALLED

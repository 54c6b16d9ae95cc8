"""What ends a command before its time."""

NO = 1
"""The question was answered, and the answer is no."""

FAILED = 2
"""It could not be done or told: bad arguments, no access, no answer."""


class Failed(Exception):  # read as a sentence
    """A command cannot do what it was asked to; the message says why, in one line for the terminal."""

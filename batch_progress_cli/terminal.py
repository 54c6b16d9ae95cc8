"""What of a text from outside may be shown on a terminal.

A job's URL and its failure are written by whoever was scraped. A terminal obeys control characters, and a reader is
misled by those that turn the direction of writing.
"""


def visible(text: str, most: int = 2_048) -> str:
    """Return a text in one line of at most `most` characters, with a mark for each that would not be seen."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return line if len(line) <= most else line[: most - 1] + "…"

"""Safe output of untrusted text on a terminal.

URLs and error messages of jobs come from the sites that were scraped. Terminals execute control characters, and
bidirectional control characters mislead the reader.
"""


def visible(text: str, most: int = 2_048) -> str:
    """Return the text as one line of at most `most` characters, with `?` for each character that is not printable."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text[: most + 1])
    return line if len(line) <= most else line[: most - 1] + "…"

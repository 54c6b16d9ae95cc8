"""Keep an even sample of bounded size of any number of values."""

from collections.abc import Callable, Sequence
from typing import Final

# The most values that a sample keeps.
LARGEST: Final = 2_048


class Sample[T]:
    """Keeps every `every`-th of the values that come, beginning with the first.

    `every` starts at 1. When the sample is full, it doubles, and every other kept value is dropped. So the sample is
    even over all values, needs no number in advance, and does not depend on how the values are divided into calls.

    Attributes:
        kept: The values kept, at most `LARGEST`, in the order in which they came.
        every: A power of two.
        seen: The number of values that came.
    """

    __slots__ = ("every", "kept", "seen")

    def __init__(self) -> None:
        self.kept: list[T] = []
        self.every = 1
        self.seen = 0

    def add[C](self, candidates: Sequence[C], value: Callable[[C], T]) -> None:
        """Add the value of each candidate. It is only computed for those that are kept."""
        before = self.seen
        self.seen += len(candidates)
        while self.seen > LARGEST * self.every:
            self.every *= 2
            del self.kept[1::2]
        self.kept += map(value, candidates[-before % self.every :: self.every])

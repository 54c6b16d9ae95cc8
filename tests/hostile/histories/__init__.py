"""Randomized histories of a large batch: the functions on an in-memory DynamoDB, interleaved at every call.

Everything random comes from one seed: a failure prints the seed that repeats it (`make histories`).
"""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]

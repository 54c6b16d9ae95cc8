"""A rule that OpenAPI cannot express: a cursor is valid for its own batch only.

A made-up cursor is refused, so cases with only valid values must not have one. Cases with invalid values keep theirs.
"""

from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext


@schemathesis.hook
def filter_case(_: HookContext, case: Case[Any]) -> bool:
    """Skip cases with a made-up cursor among valid values."""
    meant_good = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    return not (meant_good and "cursor" in (case.query or {}))

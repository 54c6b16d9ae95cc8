"""What the OpenAPI document cannot say: a cursor is good only for the batch that it was made for.

A made-up one is rightly refused, so where schemathesis means to send only good values, it is left out. Cursors
that are meant to be bad stay in.
"""

from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext


@schemathesis.hook
def filter_case(_: HookContext, case: Case[Any]) -> bool:
    """Leave out a made-up cursor among good values."""
    meant_good = case.meta is not None and case.meta.generation.mode == GenerationMode.POSITIVE
    return not (meant_good and "cursor" in (case.query or {}))

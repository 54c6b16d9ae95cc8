"""The context object that Lambda passes to a handler, for code that calls a handler itself.

This module imports nothing of the project, and nothing slow: benchmarks and package tests load it into processes that
have only the build on their path.
"""

import os
import time


class LambdaContext:
    """What the functions and Powertools read of an invocation: who runs, the request's id, the time left."""

    function_name = "progress"
    function_version = "1"
    memory_limit_in_mb = 1024
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:progress:live"
    log_group_name = "/aws/lambda/progress"
    log_stream_name = "2024/12/16/[1]0123456789abcdef"
    tenant_id = None

    def __init__(self, seconds: float) -> None:
        """Start an invocation whose timeout is `seconds` from now."""
        bits = os.urandom(16).hex()
        self.aws_request_id = f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"
        self._ends = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the timeout, 0 after it."""
        return max(0, int((self._ends - time.monotonic()) * 1_000))

"""The context object that Lambda hands to a handler, for every handler that is called without Lambda."""

import time
from dataclasses import dataclass, field
from uuid import uuid4

from batch_progress_cli.local_server import REGION

# The function's, in template.yaml.
TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Context:
    """What Lambda hands a handler beside the event."""

    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    function_name: str = "batch-progress-local"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:123456789012:function:batch-progress-local"
    log_group_name: str = "local"
    log_stream_name: str = "local"
    deadline: float = field(default_factory=lambda: time.monotonic() + TIMEOUT_MS / 1000)

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of the function's timeout."""
        return max(0, int((self.deadline - time.monotonic()) * 1000))

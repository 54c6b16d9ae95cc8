"""The server of `sam local start-api` and its events, without the container.

Runs in the SAM command line's environment: `python sam_start_api.py TEMPLATE PORT`. Answers every request with its
event in a header, because HEAD has no body.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

from samcli.lib.providers.api_provider import ApiProvider  # type: ignore[import-not-found]  # of another environment
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider  # type: ignore[import-not-found]  # the same
from samcli.local.apigw.local_apigw_service import LocalApigwService  # type: ignore[import-not-found]  # the same


class Echo:
    """Replaces the container and returns the event."""

    def is_debugging(self) -> bool:
        return False

    def invoke(self, _function: str, event: str, *, stdout: Any, **_rest: object) -> None:  # noqa: ANN401  # samcli's
        echo = base64.b64encode(event.encode()).decode()
        stdout.write_str(json.dumps({"statusCode": 200, "headers": {"X-Event": echo}}))


def main() -> None:
    stacks, _ = SamLocalStackProvider.get_stacks(sys.argv[1], parameter_overrides={})
    service = LocalApigwService(ApiProvider(stacks, cwd=str(Path.cwd())).api, Echo(), port=int(sys.argv[2]))
    service.create()
    service.run()


if __name__ == "__main__":
    main()

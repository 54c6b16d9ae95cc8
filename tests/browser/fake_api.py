"""The real page, as the function serves it under a stage's prefix, beside a fake API that a test controls."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from werkzeug import Request, Response
from werkzeug.http import http_date
from werkzeug.serving import WSGIRequestHandler, make_server

from batch_progress.progress import LONGEST_CODE
from batch_progress.table import JobStatus
from functions.progress.app import handler
from local_cloud.gateway import respond
from local_cloud.lambda_context import LambdaContext
from local_cloud.template import timeout_seconds

TOKEN = "a-good-token"
PAGE = "/watch/"
TIMEOUT = timeout_seconds("ProgressFunction")
type Job = dict[str, Any]


def rfc3339(moment: datetime, timespec: str = "seconds") -> str:
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def job(number: int, status: str = "pending", **values: object) -> Job:
    """Return a job as `include=details` shows it."""
    return {
        "job_id": f"job_{number:06}",
        "url": f"https://example.com/page/{number}",
        "status": status,
        "items_extracted": 0,
        "started_at": None,
        "finished_at": None,
        "error_code": None,
        "error_message": None,
    } | values


@dataclass
class FakeApi:
    """An API with one batch. Tests set its state and read the requests that it got.

    Attributes:
        address: The URL where it listens, with the stage.
        jobs: The batch's jobs.
        basis: The basis of the estimate.
        refusal: Status, code and `Retry-After` of an error to answer with; `None` for no error.
        token_refusal: The code of the `401` for another token than `TOKEN`.
        listing_refusal: The same, only for requests that list jobs.
        retry_after: `Retry-After` of an answer, in seconds.
        clock: Returns the current time.
        summaries: Whether the API knows `include=summary`.
        counted_ago: How long before the answer the batch was counted.
        left: The estimated time left.
        asked: The query parameters of each request so far.
        unchanged: How many answers were `304`.
    """

    address: str = ""
    jobs: Sequence[Job] = ()
    basis: str = "observed"
    refusal: tuple[int, str, int | None] | None = None
    token_refusal: str = "TOKEN_INVALID"
    listing_refusal: tuple[int, str, int | None] | None = None
    retry_after: int = 1
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    summaries: bool = True
    counted_ago: timedelta = timedelta()
    left: timedelta = timedelta(minutes=4)
    asked: list[dict[str, str]] = field(default_factory=list)
    unchanged: int = 0

    def page(self, batch_id: str = "batch_xyz789") -> str:
        """Return the page's URL."""
        return f"{self.address}{PAGE}{batch_id}"

    def answer(self, request: Request) -> Response:
        """Answer a request for progress as the real API does."""
        self.asked.append(request.args.to_dict())
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _error(401, self.token_refusal, None)
        if refusal := self.refusal or (self.listing_refusal if request.args["limit"] != "0" else None):
            return _error(*refusal)
        if not self.summaries and "summary" in request.args.get("include", ""):
            return _error(422, "VALIDATION_ERROR", None)
        content = self._data(request.args.to_dict())
        tag = f'W/"{hash(json.dumps([self.jobs, request.args, self.basis]))}"'
        headers = {"ETag": tag} | ({} if self.basis == "finished" else {"Retry-After": str(self.retry_after)})
        if tag in request.headers.get("If-None-Match", ""):
            self.unchanged += 1
            return Response(status=304, headers=headers)
        return Response(json.dumps({"success": True, "data": content}), 200, headers, mimetype="application/json")

    def _data(self, asked: dict[str, str]) -> dict[str, Any]:
        ended = {"completed": {"completed"}, "failed": {"failed", "cancelled"}}
        counts = {name: sum(job["status"] in statuses for job in self.jobs) for name, statuses in ended.items()}
        jobs = [job for job in self.jobs if asked.get("status", job["status"]) == job["status"]]
        after, limit = int(asked.get("cursor", "0")), int(asked["limit"])
        now = self.clock()
        if counts["completed"] + counts["failed"] == len(self.jobs):
            ends = [max((job["finished_at"] for job in self.jobs if job["finished_at"]), default=rfc3339(now))] * 3
        else:
            ends = [rfc3339(now + self.left * factor) for factor in (1, 0.8, 1.5)]
        estimate = {"basis": self.basis, "earliest": ends[1], "latest": ends[2], "confidence": 0.8}
        offered = {"estimate": estimate, "summary": self._summary()}
        extras = {name: value for name, value in offered.items() if name in asked.get("include", "").split(",")}
        return {
            "batch_id": "batch_xyz789",
            "total_urls": len(self.jobs),
            **counts,
            "pending": len(self.jobs) - sum(counts.values()),
            "total_items_extracted": sum(job["items_extracted"] for job in self.jobs),
            "estimated_completion": ends[0][:19].rstrip("Z") + "Z",
            "jobs": jobs[after : after + limit],
            **extras,
            "next_cursor": str(after + limit) if limit and len(jobs) > after + limit else None,
        }

    def _summary(self) -> dict[str, Any]:
        codes = [job["error_code"] for job in self.jobs if job["status"] == "failed"]
        reasons = Counter(code and code[:LONGEST_CODE] for code in codes)
        ranked = sorted(reasons.items(), key=lambda one: (-one[1], one[0] is None, one[0] or ""))
        return {
            "statuses": {status: sum(job["status"] == status for job in self.jobs) for status in JobStatus},
            "failures": [{"error_code": code, "jobs": count} for code, count in ranked[:10]],
            "as_of": rfc3339(self.clock() - self.counted_ago),
        }


def _error(status: int, code: str, retry_after: int | None) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = {"success": False, "error": {"code": code, "status": status, "details": {}}}
    return Response(json.dumps(body), status, headers, mimetype="application/json")


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


@contextlib.contextmanager
def serving(api: FakeApi, stage: str = "/prod") -> Iterator[FakeApi]:
    """Serve a fake API and the real page under a stage's prefix."""

    @Request.application
    def application(request: Request) -> Response:
        path = request.path.removeprefix(stage)
        if path.startswith(PAGE):
            # Serve the page for any id, also an invalid one, which the page must handle itself.
            request.environ["REQUEST_URI"] = f"{PAGE}batch_xyz789"
            response = respond(request, lambda event: handler(event, LambdaContext(TIMEOUT)))
        elif path.startswith("/v1/scrape/batch/"):
            response = api.answer(request)
        else:
            response = Response(status=404)
        response.headers["Date"] = http_date(api.clock())
        return response

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    api.address = f"http://127.0.0.1:{server.server_port}{stage}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""Fuzz the progress function: `make fuzz` (CASES=20000).

A quarter of the cases are HTTP requests that schemathesis generates from docs/openapi.json, valid and invalid. The
others are events that hypothesis generates for the handler: any JSON, mutated events of API Gateway, hostile headers,
direct events.

Each answer must be a valid proxy response with an envelope that the document describes, and never a `5xx`. Every token
contains a mark, which must not appear in an answer, a header or the log at level DEBUG. The cases are the same each
time; SEED= changes them.
"""

import contextlib
import copy
import io
import json
import logging
import os
import platform
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, checks
from schemathesis.core.result import Ok
from werkzeug import Request, Response
from werkzeug.serving import make_server

from batch_progress import table
from batch_progress.table import BATCH_KEY
from batch_progress.tokens import session_owner
from batch_progress_cli.local_server import HOST
from benchmarks.invocation import environment
from benchmarks.run import machine
from benchmarks.workload import JOBS_TABLE, OWNER, TOKENS_TABLE
from local_cloud.gateway import to_response
from local_cloud.issuer import LocalIssuer
from local_cloud.lambda_context import LambdaContext
from local_cloud.proxy_event import proxy_event
from local_cloud.template import timeout_seconds
from tests.hostile import faults
from tests.hostile.serving import ready, serving

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = Path(__file__).with_name("fuzz.json")
# Part of every token that is sent.
MARK: Final = "canary"
GOOD: Final = f"{MARK}-good-token"
EXPIRED: Final = f"{MARK}-expired-token"
STATUSES: Final = frozenset({200, 304, 401, 404, 405, 422})
ERROR: Final = ["code", "message", "system_message", "type", "status", "details", "trace_id", "timestamp"]
# Percentages of all cases.
SHARES: Final = {"document": 25, "any JSON": 15, "mutated": 25, "hostile headers": 20, "direct": 15}
BATCHES: Final = ("batch_going", "batch_ended", "batch_stranger", "batch_none", "batch_session")
CHECKS: Final = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

type Answer = dict[str, Any]


# Checks


class Bad(AssertionError):
    """An answer is wrong."""


def check(condition: object, what: str) -> None:
    """Raise `Bad` unless the condition holds."""
    if not condition:
        raise Bad(what)


def check_envelope(envelope: Any) -> int:  # noqa: ANN401  # any answer
    """Check an envelope, and return its status."""
    check(isinstance(envelope, dict), "not an object")
    if envelope.get("success") is True:
        check(list(envelope) == ["success", "data"], "a success with other fields")
        data = envelope["data"]
        total = data["completed"] + data["failed"] + data["pending"]
        check(data["total_urls"] == total, "the counts do not add up")
        check(min(data["completed"], data["failed"], data["pending"]) >= 0, "a count is negative")
        return 200
    check(list(envelope) == ["success", "error"], "an error with other fields")
    error = envelope["error"]
    check(list(error) == ERROR, "an error with other fields")
    check(
        all(isinstance(error[name], str) and error[name] for name in (*ERROR[:4], *ERROR[6:])),
        "an error with a field that is not text",
    )
    check(isinstance(error["details"], dict), "details are not an object")
    return int(error["status"])


def check_http(event: dict[str, Any], answer: Answer) -> int:
    """Check a proxy response as the gateway and a client see it, and return its status."""
    method = str(event.get("httpMethod")).upper()
    response: Response = to_response(answer, method)
    status = response.status_code
    check(status in STATUSES, f"status {status}: {response.get_data()[:300]!r}")
    check("X-Request-Id" in response.headers, "no X-Request-Id")
    check(
        ("WWW-Authenticate" in response.headers) == (status == 401), "WWW-Authenticate without 401, or the reverse"
    )  # HTTP's
    check(("Allow" in response.headers) == (status == 405), "Allow without 405, or the reverse")  # HTTP's
    check(not any("\n" in value or "\r" in value for _, value in response.headers), "a header with a line break")
    body = response.get_data()
    if method == "HEAD" or status == 304:  # HTTP's Not Modified
        check(body == b"", "a body in an answer without one")
    elif response.mimetype == "application/json" and response.headers.get("Content-Encoding") is None:
        check(check_envelope(json.loads(body)) == status, "the status of the envelope differs from the HTTP status")
    return status


# Cases


# Includes lone surrogates, which JSON can contain.
texts = st.text(st.characters(exclude_categories=()), max_size=24)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
batch_ids = st.sampled_from(BATCHES) | texts
_VALUES: Final = ("pending", "failed,completed", "0", "5", "1000", "1001", "-1", "٣", "details", "estimate,details", "")
queries = st.dictionaries(
    st.sampled_from(["status", "limit", "cursor", "include"]) | texts, st.sampled_from(_VALUES) | texts, max_size=4
)
# Whitespace, line breaks, header folding, characters that tokens cannot have, a second value.
_ODD: Final = ("", " ", "\t", "\r\n ", "\n", "\0", "é", "\udc80", ",", ", Bearer x", "=", "\x7f", "\r\nX-Key: x")
# A session token of the trusted issuer; set once the issuer runs.
SESSION: Final = {"token": ""}
_SPOILT: Final = (
    "{head}.{claims}.{signature}",
    "{head}.{claims}.",
    ".{claims}.{signature}",
    "{claims}.{claims}.{claims}",
    "{head}.{claims}.{signature}=",
    "{head}.{claims}.{head}",
)
sessions = st.sampled_from(_SPOILT).map(
    lambda form: form.format(**dict(zip(("head", "claims", "signature"), SESSION["token"].split("."), strict=False)))
)
tokens = st.one_of(
    sessions,
    st.text("abc_-019", max_size=30).map(lambda part: f"{MARK}.{part}.{part}"),
    st.just(GOOD),
    st.just(EXPIRED),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-._~+/", max_size=40).map(lambda text: f"{MARK}{text}"),
    st.tuples(st.sampled_from(_ODD), st.sampled_from(_ODD)).map(lambda odd: f"{odd[0]}{GOOD}{odd[1]}"),
    texts.map(lambda text: f"{MARK}{text}"),
    st.integers(500, 10_240).map(lambda size: MARK + "a" * size),
)
_SCHEMES: Final = ("Bearer ", "bearer ", "BEARER   ", "Bearer\t", "Bearer", "Basic ", "Bearer Bearer ", "", "\r\n ")
schemes = st.sampled_from(_SCHEMES)
credentials = st.one_of(
    st.tuples(
        st.sampled_from(["Authorization", "authorization", "AUTHORIZATION", "Authorization ", " authorization\n"]),
        st.builds(str.__add__, schemes, tokens),
    ),
    st.tuples(st.sampled_from(["X-API-Key", "x-api-key", "X-Api-Key", "X-API-KEY ", "x_api_key"]), tokens),
)
other_headers = st.tuples(
    st.sampled_from(["If-None-Match", "Accept-Encoding", "Range", "X-HTTP-Method-Override", "X-Amzn-Trace-Id", "Host"])
    | texts,
    st.sampled_from(["*", 'W/"1.0.0123456789abcdef01234567"', '"a", "b"', "gzip;q=1e9", "gzip", "identity;q=0, *;q=0"])
    | texts,
)
good_credentials = st.sampled_from([("Authorization", f"Bearer {GOOD}"), ("X-API-Key", GOOD)]) | st.builds(
    lambda: ("Authorization", f"Bearer {SESSION['token']}")
)


def marked(text: str) -> bool:
    """Tell whether a text contains a part of a token."""
    # The first part of a session token is no mark, because all session tokens share it.
    marks = (MARK, *SESSION["token"].lower().split(".")[1:])
    return any(mark in text.lower() for mark in marks)


headers = st.lists(credentials | good_credentials | other_headers, max_size=5)


def _proxy_event(
    method: str, prefix: str, batch_id: str, sent: list[tuple[str, str]], query: dict[str, str]
) -> dict[str, Any]:
    event = proxy_event(method, f"{prefix}/v1/scrape/batch/{batch_id}/progress", sent, query.items())
    # Set the parameter even for ids with which the gateway would match another resource.
    return event | {"pathParameters": {"batch_id": batch_id}}


methods = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "get", "TRACE"])
prefixes = st.sampled_from(["", "/api"])
hostile = st.builds(_proxy_event, methods, prefixes, batch_ids, headers, queries)
sound = st.builds(
    _proxy_event,
    st.sampled_from(["GET", "HEAD"]),
    prefixes,
    st.sampled_from(BATCHES),
    st.lists(good_credentials, min_size=1, max_size=1),
    st.just({}),
)


def _places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from _places(each, (*path, key))


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid event with some values removed or replaced."""
    event: dict[str, Any] = draw(sound)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(_places(event))))
        within: Any = event
        for key in path[:-1]:
            within = within[key]
        if draw(st.booleans()):
            within[path[-1]] = draw(anything)
        else:
            del within[path[-1]]
    return event


# Recognized as API Gateway's, with arbitrary values.
odd_events = st.fixed_dictionaries(
    {"requestContext": anything, "httpMethod": methods | anything},
    optional={
        "path": st.sampled_from(["/v1/scrape/batch/batch_going/progress", "/watch/batch_going", "/"]) | anything,
        **dict.fromkeys(("headers", "multiValueHeaders", "pathParameters"), anything),
        **dict.fromkeys(("queryStringParameters", "multiValueQueryStringParameters", "resource", "body"), anything),
    },
)
sound_direct = st.fixed_dictionaries(
    {"batch_id": st.sampled_from(BATCHES)},
    optional={
        "limit": st.integers(0, 1_000),
        "status": st.lists(st.sampled_from(["failed", "pending"]), min_size=1),
        "include": st.lists(st.sampled_from(["details", "estimate"]), min_size=1),
        "owner_id": st.sampled_from([OWNER, "stranger"]),
    },
)
_KEYS: Final = ("batch_id", "limit", "status", "include", "cursor", "owner_id")
odd_direct = st.builds(
    lambda event, more: event | more,
    sound_direct,
    st.dictionaries(st.sampled_from(_KEYS) | texts, batch_ids | anything, min_size=1, max_size=3),
)
MADE: Final = {
    "any JSON": anything | odd_events,
    "mutated": mutated(),
    "hostile headers": hostile,
    "direct": sound_direct | odd_direct | odd_direct,
}


# Runs


class Campaign:
    """The cases that were sent, and their results.

    Attributes:
        cases: Number of cases by kind.
        statuses: Number of answers by kind and status.
        bad: Findings.
    """

    def __init__(self, cases: int, chosen: int) -> None:
        """Plan a number of cases; `chosen` is the seed."""
        self._cases = cases
        self._seed = chosen
        self.cases: Counter[str] = Counter()
        self.statuses: dict[str, Counter[str]] = {kind: Counter() for kind in SHARES}
        self.bad: list[str] = []

    def run(self, kind: str, strategy: st.SearchStrategy[Any], send: Callable[[Any], int], share: float = 1) -> None:
        """Send the cases of a kind."""
        print(f"{kind} ...", file=sys.__stderr__, flush=True)

        @seed(self._seed)
        @settings(
            max_examples=round(self._cases * SHARES[kind] / 100 * share),
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def test(example: Any) -> None:  # noqa: ANN401  # any case
            self.cases[kind] += 1
            try:
                self.statuses[kind][str(send(example))] += 1
            except Exception as error:
                failed[:] = [f"{kind}: {type(error).__name__}: {error}\n{example!r}"[:3_000]]
                raise

        # Hypothesis shrinks: the last failing example is the smallest.
        failed: list[str] = []
        try:
            test()
        except Exception:  # noqa: BLE001  # every exception is a finding
            self.bad += failed


def run_events(campaign: Campaign) -> None:
    """Call the handler in this process with events."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        # Capture every logger. The function's own logger keeps the stdout of its import.
        logging.basicConfig(level=logging.DEBUG, stream=output)
        for noisy in ("hypothesis", "schemathesis", "asyncio"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from functions.progress.app import handler  # noqa: PLC0415  # only now is its output captured

        seconds = timeout_seconds("ProgressFunction")

        def send(event: Any) -> int:  # noqa: ANN401  # any case
            http = isinstance(event, dict) and "requestContext" in event and "httpMethod" in event
            before = copy.deepcopy(event)
            output.seek(0)
            output.truncate()
            answer = handler(event, LambdaContext(seconds))
            # The runtime encodes it like this: without escapes.
            sent = json.dumps(answer, ensure_ascii=False).encode()
            check(not marked(sent.decode()), "a token is in the answer")
            check(not marked(output.getvalue()), "a token is in the log")
            if http:
                return check_http(before, answer)
            status = check_envelope(answer)
            check(status in STATUSES, f"status {status}: {answer}")
            return status

        for kind, strategy in MADE.items():
            campaign.run(kind, strategy, send)


def run_document(campaign: Campaign, endpoint: str) -> None:
    """Send HTTP requests to the handler in another process, and search its log."""
    schema = schemathesis.openapi.from_path(ROOT / "docs" / "openapi.json")
    sendable = credentials.filter(lambda each: each[0].strip() == each[0])
    credential = st.integers(0, 4).flatmap(lambda number: good_credentials if number else sendable)
    with tempfile.TemporaryDirectory() as folder:
        with serving(1, environment(endpoint) | {"POWERTOOLS_LOG_LEVEL": "DEBUG"}, Path(folder)) as (address, _):

            def send(example: tuple[Case[Any], tuple[str, str], str]) -> int:
                case, (name, value), batch_id = example
                for own in [own for own in case.headers if own.lower() in ("authorization", "x-api-key")]:
                    del case.headers[own]
                # Remove characters that HTTP libraries refuse to send.
                value = re.sub(r"[^\x20-\xff]", "", value).strip()
                case.headers[name] = value
                if batch_id and "batch_id" in case.path_parameters:
                    case.path_parameters["batch_id"] = batch_id
                response = case.call(base_url=address, timeout=30)
                shown = f"{response.headers} {response.text}"
                check(not marked(shown), "a token is in the answer")
                case.validate_response(response, checks=CHECKS)
                return response.status_code

            ready(address)
            operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
            modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
            for operation in operations:
                for mode in modes:
                    strategy = st.tuples(
                        operation.as_strategy(generation_mode=mode), credential, st.sampled_from(("", *BATCHES))
                    )
                    campaign.run("document", strategy, send, 1 / len(operations) / len(modes))
        written = Path(folder, "0.log").read_text(encoding="utf-8", errors="replace")
        if marked(written):
            line = next(line for line in written.splitlines() if marked(line))
            campaign.bad.append(f"document: a token is in the log: {line[:500]}")
        if written.count('"message":"request"') < campaign.cases["document"]:
            campaign.bad.append("document: the function's log is incomplete")


@contextlib.contextmanager
def issuing() -> Iterator[LocalIssuer]:
    """Run an issuer of session tokens while the block runs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # hide the access log
    with socket.create_server((HOST, 0)) as listener:
        issuer = LocalIssuer(f"http://{HOST}:{listener.getsockname()[1]}")
        server = make_server(
            HOST, listener.getsockname()[1], Request.application(issuer.respond), threaded=True, fd=listener.fileno()
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()


def fill(endpoint: str) -> None:
    """Create and fill the tables, marked tokens included."""
    engine = faults.client(endpoint)
    faults.make_tables(engine)
    faults.fill(engine)
    for token, more in ((GOOD, {}), (EXPIRED, {"expires_at": {"N": "1734343200"}})):
        engine.put_item(TableName=TOKENS_TABLE, Item=faults.token_item(token) | more)


def text(results: dict[str, Any]) -> str:
    """Return the results for the terminal."""
    machine = results["machine"]
    lines = [
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {results['seconds']} s",
        f"seed {results['seed']}",
        f"{'':<18}{'cases':>8}  answers",
    ]
    for kind, row in results["kinds"].items():
        told = ", ".join(f"{status}: {count:,}" for status, count in row["statuses"].items())
        lines.append(f"{kind:<18}{row['cases']:>8,}  {told}")
    return "\n".join([*lines, f"{'all':<18}{results['cases']:>8,}"])


def main() -> None:
    """Run all cases, write and print the results; exit with 1 if there are findings."""
    endpoint = os.environ.get("DYNAMODB_ENDPOINT")
    if endpoint is None:
        sys.exit("fuzz: DYNAMODB_ENDPOINT is not set; run: make fuzz")
    began = time.monotonic()
    os.environ.update(environment(endpoint))
    campaign = Campaign(int(os.environ.get("CASES", "20000")), int(os.environ.get("SEED", "1")))
    with issuing() as issuer:
        # Before the function reads its settings.
        os.environ.update(issuer.environment())
        fill(endpoint)
        SESSION["token"] = issuer.token(OWNER, 86_400)
        owner = session_owner(issuer.address, OWNER)
        session_batch = table.item(batch_id=BATCHES[-1], sk=BATCH_KEY, owner_id=owner)
        faults.client(endpoint).put_item(TableName=JOBS_TABLE, Item=session_batch)
        run_document(campaign, endpoint)
        run_events(campaign)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - began),
        "machine": machine(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("hypothesis", "schemathesis")},
        "seed": int(os.environ.get("SEED", "1")),
        "cases": campaign.cases.total(),
        "bad": len(campaign.bad),
        "kinds": {
            kind: {"cases": campaign.cases[kind], "statuses": dict(sorted(campaign.statuses[kind].items()))}
            for kind in SHARES
        },
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(text(results))
    if campaign.bad:
        sys.exit("\n\n".join(["", *campaign.bad, f"fuzz: {len(campaign.bad)} findings"]))
    print("\nfuzz: no 5xx, no invalid answer, no token in an answer or the log")


if __name__ == "__main__":
    main()

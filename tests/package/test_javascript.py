"""The JavaScript example of docs/client.md, unchanged but for the address, in Node.js."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.hostile.misbehaving import Reply, misbehaving
from tests.integration import server
from tests.integration.client_examples import javascript_example
from tests.integration.server import CEILING, LocalApi

local_api = server.local_api  # pytest finds fixtures among the names of this module

FUNCTION, USE = javascript_example()
# Calls the function and prints what came of it. Its clock counts pauses only, and those take a hundredth of their time.
# No request reaches its time limit because the machine is busy: only one that gets no answer does.
DRIVER = """
const [url, silent, abortAfter, retryFor] = process.argv.slice(2);
const { setTimeout: timeout, performance: { now: clock }, AbortSignal: { timeout: limit } } = globalThis;
const pauses = [];
let [requests, now] = [0, 0];
// Node.js itself sets timers and reads the clock for requests, too.
const pausing = () => {
  const { stack } = new Error();
  return stack.includes("waitForBatch") && !stack.includes(" poll ");
};
globalThis.setTimeout = (call, milliseconds, ...more) => {
  if (!pausing()) return timeout(call, milliseconds, ...more);
  pauses.push(milliseconds / 1000);
  now += milliseconds;
  return timeout(call, milliseconds / 100, ...more);
};
performance.now = () => (pausing() ? now : clock.call(performance));
AbortSignal.timeout = (milliseconds) => {
  if (milliseconds !== 20_000) throw new Error(`not the time of a request: ${milliseconds}`);
  return limit.call(AbortSignal, JSON.parse(silent).includes(requests++) ? 50 : 60_000);
};
process.on("warning", (warning) => { throw warning; });
const states = [];
const stop = new AbortController();
if (abortAfter) timeout(() => stop.abort(), Number(abortAfter));
const options = { signal: stop.signal, onChange: (now) => states.push(now.completed + now.failed) };
if (retryFor) options.retryFor = Number(retryFor);
const outcome = {};
try {
  outcome.end = await waitForBatch(url, "demo-token", "batch_a", options);
} catch (error) {
  outcome.error = `${error.name}: ${error.message}`;
}
console.log(JSON.stringify({ ...outcome, pauses, states }));
"""


def node(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program as a module."""
    found = shutil.which("node")
    assert found, "the JavaScript example needs node"
    return subprocess.run(  # noqa: S603  # the page's own
        [found, "--input-type=module", "-", *arguments],
        input=program,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=CEILING,
    )


def state(ended: int, tag: str = "", retry_after: str = "") -> Reply:
    """Return the API's answer for a batch of four jobs."""
    data = {"batch_id": "batch_a", "total_urls": 4, "completed": ended, "failed": 0, "pending": 4 - ended}
    headers = {"ETag": tag, "Retry-After": retry_after}
    body = json.dumps({"success": True, "data": data}).encode()
    return Reply(body=body, headers={name: value for name, value in headers.items() if value})


def refused(status: int, code: str, retry_after: str = "") -> Reply:
    body = json.dumps({"success": False, "error": {"code": code, "message": "No."}}).encode()
    return Reply(status, body, {"Retry-After": retry_after} if retry_after else {})


def waited(*replies: Reply, abort_after: str = "", retry_for: str = "") -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Wait for a batch at a server with these replies; return the outcome and the headers of the requests."""
    left, asked = list(replies), []

    def answer(path: str, headers: dict[str, str], _: bytes) -> Reply:
        assert "/api/v1/scrape/batch/batch_a/progress?limit=0&include=summary,estimate" == path
        asked.append({name.lower(): value for name, value in headers.items()})
        return left.pop(0) if len(left) > 1 else left[0]

    with misbehaving(answer) as address:
        # A request that is to be aborted is not ended by its time limit.
        silent = [number for number, reply in enumerate(replies) if reply.silent and not abort_after]
        done = node(FUNCTION + DRIVER, address.address, json.dumps(silent), abort_after, retry_for)
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout), asked


def test_the_example_prints_what_is_shown(local_api: LocalApi) -> None:
    """`batch_live` of the local server, to its end."""
    done = node(FUNCTION + USE.at(local_api.address))
    assert (0, "") == (done.returncode, done.stderr)
    assert USE.printed_like(done.stdout), done.stdout


def test_it_is_short() -> None:
    assert 40 >= len(FUNCTION.splitlines())


def test_it_asks_with_the_tag_at_the_pace_of_the_api() -> None:
    """An unchanged batch is no state. The token is in the documented header."""
    outcome, asked = waited(
        state(1, 'W/"1"', "7"), Reply(304, headers={"Retry-After": "9", "ETag": 'W/"1"'}), state(2), state(4)
    )
    assert ([1, 2, 4], [7, 9, 5]) == (outcome["states"], outcome["pauses"])
    assert 4 == outcome["end"]["completed"]
    assert [None, 'W/"1"', 'W/"1"', None] == [request.get("if-none-match") for request in asked]
    assert {"Bearer demo-token"} == {request["authorization"] for request in asked}


BODY = state(2).body
DAMAGED = [
    Reply(reset=0),
    Reply(body=BODY, reset=20),
    Reply(hang_up=True),
    Reply(body=BODY[:30], promised=len(BODY)),
    Reply(body=BODY[:30]),
    Reply(body=b""),
    Reply(body=b"null"),
    Reply(body=BODY.replace(b"2", b"3", 1)),
    Reply(silent=CEILING),
    Reply(502, b"<html>"),
    Reply(408),
    refused(500, "INTERNAL_ERROR"),
]


@pytest.mark.parametrize(("asked", "pause"), [("-7", 5), ("0.001", 5), ("soon", 5), ("9" * 400, 60)])
def test_an_odd_retry_after_keeps_the_pace_within_bounds(asked: str, pause: int) -> None:
    outcome, _ = waited(state(1, retry_after=asked), state(4))
    assert [pause] == outcome["pauses"]


def test_every_damage_is_survived() -> None:
    """Nothing is reported twice, and no failure makes a listener or a timer stay."""
    outcome, asked = waited(state(1, 'W/"1"'), *DAMAGED, state(4), retry_for="3600")
    assert [1, 4] == outcome["states"]
    assert len(DAMAGED) + 2 == len(asked)
    assert {'W/"1"'} == {request["if-none-match"] for request in asked[1:]}


def test_pauses_grow_and_differ_and_keep_to_retry_after() -> None:
    faults = [refused(503, "A"), refused(503, "A"), refused(429, "A", "20"), *[refused(503, "A")] * 4]
    outcome, _ = waited(*faults, state(4))
    ranges = [(0.5, 1), (1, 2), (22, 24), (4, 8), (8, 16), (15, 30), (15, 30)]
    for pause, (least, most) in zip(outcome["pauses"], ranges, strict=True):
        assert least <= pause <= most
    assert len(set(outcome["pauses"])) == len(ranges)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refused(401, "TOKEN_EXPIRED"), "Error: 401 TOKEN_EXPIRED: No."),
        (refused(404, "BATCH_NOT_FOUND"), "Error: 404 BATCH_NOT_FOUND: No."),
        (Reply(403, b"<html>"), "Error: 403, and not by the API"),
        (Reply(302, headers={"Location": "http://127.0.0.1:1/"}), "Error: 302, and not by the API"),
        (Reply(304), "Error: 304, and not by the API"),
        (Reply(204), "Error: 204, and not by the API"),
    ],
)
def test_what_another_try_does_not_help_is_thrown_at_once(reply: Reply, said: str) -> None:
    """A redirect too: the token must not reach another host."""
    outcome, asked = waited(reply)
    assert (said, 1) == (outcome["error"], len(asked))


def test_it_gives_up_without_an_answer() -> None:
    outcome, asked = waited(refused(503, "A"), retry_for="3")
    assert "Error: gave up: 503 A: No." == outcome["error"]
    assert 3 == len(asked)


@pytest.mark.parametrize("reply", [Reply(silent=CEILING), state(1, retry_after="60")], ids=["request", "pause"])
def test_it_can_be_aborted(reply: Reply) -> None:
    """In the middle of a request, and of a pause."""
    outcome, asked = waited(reply, abort_after="150")
    assert outcome["error"].startswith("AbortError: ")
    assert len(asked) <= 1


def test_over_a_bad_line_the_requests_stay_few() -> None:
    """With 30% of the answers damaged, the end is the same, and each damage costs one request."""
    good = [state(number // 10) for number in range(41)]
    damaged = {number: DAMAGED[number % len(DAMAGED)] for number in range(41) if number % 7 in {1, 4, 6}}
    bad = [one for number, answer in enumerate(good) for one in (damaged.get(number), answer) if one]
    assert 0.28 < len(damaged) / len(bad) < 0.32
    outcome, asked = waited(*bad, retry_for="3600")
    assert 4 == outcome["end"]["completed"]
    assert 41 + len(damaged) == len(asked) <= 2 * 41

"""`batch-progress serve`, the real command."""

import http.client
import json
import re
import shlex
import signal
import socket
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from typer.testing import CliRunner

from batch_progress_cli.main import app
from tests.integration import server
from tests.integration.server import CEILING, COMMAND, LocalApi, closed_port

PATH = "/api/v1/scrape/batch/batch_xyz789/progress"
KEY = {"X-API-Key": "demo-token"}


def log_of(api: LocalApi) -> Path:
    """Return the log file named on the screen."""
    named = re.search(r"log +(\S+)", api.screen.read_text())
    assert named
    return Path(named[1])


def test_the_example_batch_is_there(local_api: LocalApi) -> None:
    """The contract's example, with an estimated completion in the future."""
    asked = datetime.now(UTC)
    data = httpx.get(local_api.address + PATH, headers=KEY).raise_for_status().json()["data"]
    assert (10, 7, 1, 2, 245) == tuple(
        data[name] for name in ("total_urls", "completed", "failed", "pending", "total_items_extracted")
    )
    assert {
        "job_id": "job_abc123",
        "url": "https://example.com/page1",
        "status": "completed",
        "items_extracted": 25,
    } == data["jobs"][0]
    assert 10 == len(data["jobs"])
    wait = datetime.fromisoformat(data["estimated_completion"]) - asked
    # It has whole seconds.
    assert -1 < wait.total_seconds() < 3_600


def test_the_printed_curl_works_as_it_stands(local_api: LocalApi) -> None:
    line = next(line for line in local_api.screen.read_text().splitlines() if line.startswith("  curl "))
    done = subprocess.run(shlex.split(line), capture_output=True, check=True)  # noqa: S603  # a line of our own screen
    assert b'"batch_id":"batch_xyz789"' in done.stdout.replace(b" ", b"")


def test_the_printed_watch_command_works_as_it_stands(local_api: LocalApi) -> None:
    """The page's address is printed next to it."""
    screen = local_api.screen.read_text()
    line = next(line for line in screen.splitlines() if " watch batch_live " in line)
    with subprocess.Popen(shlex.split(line), stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  # the same
        assert process.stdout
        assert any(" of 40 completed, " in line for line in process.stdout)
        process.terminate()
    assert f"  {local_api.address}/watch/batch_live\n" in screen


def test_the_printed_page_is_there(local_api: LocalApi) -> None:
    line = next(line for line in local_api.screen.read_text().splitlines() if "/watch/" in line)
    page = httpx.get(line.strip()).raise_for_status()
    assert ("text/html; charset=utf-8", True) == (page.headers["Content-Type"], "<title>Batch progress" in page.text)


def test_one_screen_says_what_is_running(local_api: LocalApi) -> None:
    """The welcome fits a terminal of 24 lines. The function's own output is not on the screen."""
    httpx.get(local_api.address + PATH, headers=KEY)
    screen = local_api.screen.read_text()
    welcome, _, requests = screen.partition("Ctrl-C ends it.\n")
    assert 24 > len(welcome.splitlines())
    line_of = re.compile(r"\d\d:\d\d:\d\d  (\d{3}  \S+ .*  \d+ ms|event  Batch (Finished|Stalled)  .+ completed, .+)")
    assert all(line_of.fullmatch(line) for line in requests.splitlines() if line)
    assert "" == local_api.errors.read_text()


def test_the_functions_output_is_in_the_log(local_api: LocalApi) -> None:
    """Its log lines go to the file named on the screen."""
    httpx.get(local_api.address + PATH, headers=KEY)
    assert log_of(local_api).read_text().startswith("{")


def test_events_come_as_they_are_delivered(local_api: LocalApi) -> None:
    """The command prints those since the start: no worker runs the last jobs of the example batch, so it stalls."""
    port = local_api.address.rpartition(":")[2]
    printed = []
    for more in ([], ["--json"]):
        with subprocess.Popen(  # noqa: S603  # the project's own command
            [COMMAND, "events", "--local", port, *more], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            printed.append(next(line for line in process.stdout if "batch_xyz789" in line))
            process.terminate()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  event  Batch Stalled  batch_xyz789  7 completed, 1 failed, 2 pending \(1 TIMEOUT\)\n",
        printed[0],
    )
    event = json.loads(printed[1])
    assert ("batch-progress", "Batch Stalled", 2) == (event["source"], event["detail-type"], event["detail"]["pending"])
    assert printed[0].partition("event")[2] in local_api.screen.read_text()


def test_events_without_a_server_is_one_line() -> None:
    with closed_port() as port:
        done = CliRunner().invoke(app, ["events", "--local", str(port)])
    said = f"no events at http://127.0.0.1:{port}/events; `make run` must run, or give its port with --local"
    assert (2, "", f"batch-progress: {said}\n") == (done.exit_code, done.stdout, done.stderr)


def test_an_expired_token_is_refused(local_api: LocalApi) -> None:
    answer = httpx.get(local_api.address + PATH, headers={"X-API-Key": "demo-expired-token"})
    assert (401, "API_KEY_EXPIRED") == (answer.status_code, answer.json()["error"]["code"])


def test_head_answers_like_get(local_api: LocalApi) -> None:
    answer = httpx.head(local_api.address + PATH, headers=KEY)
    assert (200, b"") == (answer.status_code, answer.content)


def test_a_header_sent_twice_reaches_the_function_twice(local_api: LocalApi) -> None:
    """The contract refuses two different keys. A server that joins them would hide the second."""
    answer = httpx.get(local_api.address + PATH, headers=[("X-API-Key", "demo-token"), ("X-API-Key", "another-token")])
    assert 401 == answer.status_code


def test_many_at_once_are_all_answered(local_api: LocalApi) -> None:
    """Requests may come concurrently; a Lambda function handles one at a time."""
    count = 20
    listener = local_api.address.removeprefix("http://").split(":")
    ask = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: demo-token\r\n\r\n".encode()
    connections = [socket.create_connection((listener[0], int(listener[1])), timeout=CEILING) for _ in range(count)]
    for connection in connections:
        connection.sendall(ask)
    answers = [connection.recv(12) for connection in connections]
    for connection in connections:
        connection.close()
    assert [b"HTTP/1.1 200"] * count == answers


def test_a_request_to_terminate_ends_it_cleanly() -> None:
    """The status is 0, stderr is empty, and the log file is deleted."""
    with server.running() as api:
        log = log_of(api)
        assert log.exists()
        assert 0 == api.stop(signal.SIGTERM)
        assert not log.exists()
        assert "" == api.errors.read_text()
        assert api.screen.read_text().endswith("\nStopped.\n")


def test_a_taken_port_is_one_line() -> None:
    """It names the port and what to do, and fails."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = _refused("--port", port)
    assert re.fullmatch(rf"batch-progress: port {port} on 127\.0\.0\.1: .+; give another with .+\n", done)


def listening(process: int) -> set[tuple[str, int]]:
    """Return the addresses and ports at which a process listens."""
    if not Path("/proc/net/tcp").exists():
        command = ["lsof", "-nPa", "-p", str(process), "-iTCP", "-sTCP:LISTEN", "-Fn"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  # the above
        return {(host, int(port)) for host, port in re.findall(r"^n(.*):(\d+)$", printed, re.MULTILINE)}
    sockets = set()
    for file in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(file.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                address, port = local.split(":")
                packed = bytes.fromhex(address)[::-1]
                found.add((socket.inet_ntoa(packed) if table == "tcp" else address, int(port, 16)))
    return found


def test_it_listens_nowhere_else(local_api: LocalApi) -> None:
    """Everything is on the port that it prints, on loopback."""
    port = int(local_api.address.rpartition(":")[2])
    assert {("127.0.0.1", port)} == listening(local_api.process.pid)


SCAN = {"X-Amz-Target": "DynamoDB_20120810.Scan", "Content-Type": "application/x-amz-json-1.0"}


def scan(address: str, **more: str) -> httpx.Response:
    """Read a table as a client without credentials does; `_` in a header's name stands for `-`."""
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    return httpx.post(address, headers=SCAN | headers, content=b'{"TableName": "JobsTable", "Limit": 1}')


@pytest.mark.parametrize("path", ["/", PATH, "/watch/batch_live", "/events", "/issuer/jwks.json"])
@pytest.mark.parametrize(
    "host", ["rebound.example.com", "127.0.0.1.example.com", "localhost.example.com:3000", "192.0.2.1", ""]
)
def test_a_name_that_is_not_this_machine_s_is_refused(local_api: LocalApi, path: str, host: str) -> None:
    """A page could make a name of its own resolve to this machine, and then read everything here."""
    assert 421 == httpx.get(local_api.address + path, headers=KEY | {"Host": host}).status_code
    refused = scan(local_api.address + path, Host=host)
    assert (421, False) == (refused.status_code, "batch" in refused.text)


@pytest.mark.parametrize("host", ["localhost:3000", "LOCALHOST", "127.0.0.1:8080", "host.docker.internal:3000"])
def test_this_machine_s_names_are_answered(local_api: LocalApi, host: str) -> None:
    """With any port, because tunnels and containers have other ones."""
    assert 200 == httpx.get(local_api.address + PATH, headers=KEY | {"Host": host}).status_code
    assert 200 == scan(local_api.address, Host=host).status_code


@pytest.mark.parametrize(
    "page", [{"Origin": "https://example.com"}, {"Origin": "null"}, {"Sec_Fetch_Site": "same-site"}], ids=str
)
def test_web_pages_read_neither_tables_nor_events_nor_tokens(local_api: LocalApi, page: dict[str, str]) -> None:
    headers = {name.replace("_", "-"): value for name, value in page.items()}
    answers = [
        scan(local_api.address, **page),
        httpx.get(f"{local_api.address}/events", headers=headers),
        httpx.post(f"{local_api.address}/issuer/token", headers=headers, json={"owner": "demo", "seconds": 60}),
    ]
    assert [403] * 3 == [answer.status_code for answer in answers]
    assert not any("access-control-allow-origin" in answer.headers for answer in answers)


def test_no_page_is_allowed_to_ask(local_api: LocalApi) -> None:
    """A browser asks first whether it may send a header such as `X-Amz-Target` or `X-API-Key`."""
    asked = {
        "Origin": "https://example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-amz-target",
    }
    for path in ("/", PATH, "/events", "/issuer/token"):
        answer = httpx.options(local_api.address + path, headers=asked)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_containers_have_the_tables_at_their_bridge_and_nothing_else() -> None:
    """The bridge address serves the tables on the API's port; the API itself stays on loopback.

    The user's own AWS settings have no effect.

    Ctrl-C ends the server cleanly, even if its log file is gone.
    """
    own = {
        "AWS_PROFILE": "production",
        "AWS_REGION": "mars-north-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "BATCH_PROGRESS_JOBS_TABLE": "real-jobs",
    }
    with server.running("--bridge", "127.0.0.2", **own) as api:
        bridge = api.address.replace("127.0.0.1", "127.0.0.2")
        dynamodb = boto3.client(
            "dynamodb", "eu-central-1", endpoint_url=bridge, aws_access_key_id="none", aws_secret_access_key="none"
        )
        key = {"batch_id": {"S": "batch_xyz789"}, "sk": {"S": "BATCH"}}
        assert "demo" == dynamodb.get_item(TableName="JobsTable", Key=key)["Item"]["owner_id"]["S"]
        assert 200 == httpx.get(api.address + PATH, headers=KEY).status_code
        port = int(api.address.rpartition(":")[2])
        assert {("127.0.0.1", port), ("127.0.0.2", port)} == listening(api.process.pid)
        assert 200 == scan(bridge, Host="host.docker.internal:3000").status_code
        for path in (PATH, "/", "/watch/batch_live", "/events", "/issuer/token", "/moto-api/reset", "/bucket/key"):
            assert 404 == httpx.get(bridge + path, headers=KEY).status_code
            assert 404 == httpx.post(bridge + path, headers=KEY).status_code
        for service in ("AmazonSSM.GetParameters", "AmazonSQS.ReceiveMessage", "DynamoDBStreams_20120810.ListStreams"):
            assert 400 == scan(bridge, X_Amz_Target=service).status_code
        assert 421 == scan(bridge, Host="rebound.example.com").status_code
        assert 421 == scan(bridge, Host="127.0.0.1").status_code
        assert 403 == scan(bridge, Origin="https://example.com").status_code
        log_of(api).unlink()
        assert 0 == api.stop(signal.SIGINT)
        assert "" == api.errors.read_text()


def test_a_bridge_of_another_machine_is_one_line() -> None:
    """It names the address and what to do."""
    done = _refused("--port", "0", "--bridge", "203.0.113.7")
    assert re.fullmatch(
        r"batch-progress: port \d+ on 203\.0\.113\.7: .+; give another with BRIDGE= or --bridge\n", done
    )


@pytest.mark.parametrize("address", ["docker0", "", "172.17.0", "::1"])
def test_an_invalid_bridge_is_one_line(address: str) -> None:
    """An empty address would bind every interface of the machine."""
    done = CliRunner().invoke(app, ["serve", f"--bridge={address}"])
    assert (2, "", f"batch-progress: {address!r} is not an IPv4 address\n") == (
        done.exit_code,
        done.stdout,
        done.stderr,
    )


@pytest.mark.parametrize("port", ["http", "-1", "65536", "3000.5", "", "٣"])
def test_an_invalid_port_is_one_line(port: str) -> None:
    done = CliRunner().invoke(app, ["serve", f"--port={port}"])
    said = f"batch-progress: {port!r} is not a port; give a number up to 65535\n"
    assert (2, "", said) == (done.exit_code, done.stdout, done.stderr)


def _refused(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603  # the project's own command
        [COMMAND, "serve", *arguments], capture_output=True, text=True, check=False, timeout=CEILING
    )
    assert (2, "") == (done.returncode, done.stdout)
    return done.stderr


@pytest.mark.parametrize(("name", "before"), [("Authorization", b"Bearer "), ("X-API-Key", b"")])
@pytest.mark.parametrize(
    "value",
    [b"demo-token\r\n x", b"demo-token\xe9", b"demo-token" + b"a" * 10_240, b"demo-token\r\nTwice: demo-token-2"],
)
def test_a_smuggled_token_is_refused_on_the_wire(local_api: LocalApi, name: str, before: bytes, value: bytes) -> None:
    """Bytes that no client library would send. `Twice` stands for the header's own name."""
    sent = before + value.replace(b"Twice: ", name.encode() + b": " + before)
    address = urlsplit(local_api.address)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 0, timeout=CEILING)
    connection.putrequest("GET", PATH)
    # Bypasses the library's own check.
    connection._buffer.append(name.encode() + b": " + sent)  # type: ignore[attr-defined]  # no public way to send it
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert 401 == response.status
    assert b"demo-token" not in body

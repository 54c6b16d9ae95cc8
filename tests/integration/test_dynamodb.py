"""The client of DynamoDB beside botocore's: when it tries again, what that costs, and how it treats connections."""

import contextlib
import math
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import botocore.session
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.retries import quota, standard

from batch_progress import dynamodb
from batch_progress.dynamodb import Client, Reason, RequestFailed, RequestRefused
from batch_progress.endpoint import CredentialsUnavailable, Endpoint, Proxy
from batch_progress.errors import ConfigurationError, ServiceUnavailable
from batch_progress.sigv4 import Credentials
from tests.hostile.misbehaving import Reply, write_certificate
from tests.integration.faulty import Faulty, error, good, serving
from tests.integration.server import closed_port

GET: dict[str, Any] = {"TableName": "JobsTable", "Key": {"batch_id": {"S": "batch"}, "sk": {"S": "BATCH"}}}
SEED = 1
HISTORY = 250


def endpoint(address: str, **more: Any) -> Endpoint:  # noqa: ANN401  # fields of an endpoint
    scheme, _, place = address.partition("://")
    host, _, port = place.partition(":")
    credentials = Credentials("fake", "fake", None)
    return Endpoint(scheme == "https", host, int(port), "eu-central-1", lambda: credentials, **more)


@dataclass(frozen=True)
class Rig:
    """A server, and a client that calls it."""

    server: Faulty
    ours: Client

    def attempts(self, call: Callable[..., object], reply: Reply) -> int:
        """Return how many attempts a call makes while the server replies so."""
        self.server.forget()
        self.server.forever["batch"] = reply
        with contextlib.suppress(BotoCoreError, ClientError, ServiceUnavailable, RequestRefused):
            call(**GET)
        return self.server.calls["batch"]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The client retries without waiting. No request times out because the machine is busy."""
    monkeypatch.setattr(dynamodb, "backoff", lambda *_, **__: 0.0)
    monkeypatch.setattr(dynamodb, "READ_TIMEOUT_SECONDS", 60.0)
    with serving() as server:
        ours = Client(endpoint(server.address))
        yield Rig(server, ours)
        ours.close()


@pytest.fixture
def stock(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Botocore's client with as many attempts, which retries without waiting too."""
    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0)
    client = botocore.session.Session().create_client(
        "dynamodb",
        region_name="eu-central-1",
        endpoint_url=rig.server.address,
        aws_access_key_id="fake",
        aws_secret_access_key="fake",
        config=Config(retries={"mode": "standard", "total_max_attempts": dynamodb.ATTEMPTS}),
    )
    yield client
    client.close()


def failure(call: Callable[..., object], **arguments: object) -> RequestFailed:
    """Return why a call fails."""
    with pytest.raises(ServiceUnavailable) as caught:
        call(**arguments or GET)
    cause = caught.value.__cause__
    assert isinstance(cause, RequestFailed)
    return cause


# Retries


def error_codes() -> list[str]:
    """Every code that botocore's standard mode or DynamoDB's model knows, and some that neither does."""
    model = botocore.session.Session().get_service_model("dynamodb")
    modelled = {shape.name for name in ("Query", "GetItem") for shape in model.operation_model(name).error_shapes}
    throttled = standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES
    transient = standard.TransientRetryableChecker._TRANSIENT_ERROR_CODES
    return sorted({*modelled, *throttled, *transient, "Novelty", "AccessDeniedException", "ExpiredTokenException"})


@pytest.mark.parametrize("status", [400, 403, 413, 429, 500, 501, 503])
def test_an_error_is_retried_as_often_as_botocore_retries_it(
    rig: Rig,
    stock: Any,  # noqa: ANN401  # botocore ships no types
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """By code and status. One difference: to us a 429 is throttling, whatever the code in it."""
    monkeypatch.setattr(quota.RetryQuota, "acquire", lambda *_: True)
    monkeypatch.setattr(dynamodb.RetryQuota, "take", lambda *_, **__: 0)
    expected, ours = {}, {}
    for code in error_codes():
        if status == 429 and code in ("ResourceNotFoundException", "InternalServerError"):
            continue
        expected[code] = rig.attempts(stock.get_item, error(code, status))
        ours[code] = rig.attempts(rig.ours.get_item, error(code, status))
    assert expected == ours


def test_the_quota_of_retries_is_spent_and_refilled_as_botocores_is(
    rig: Rig,
    stock: Any,  # noqa: ANN401  # botocore ships no types
) -> None:
    """500 tokens; a retry costs 14, or 5 where throttled; a success gives back its last retry's, or 1."""
    random_ = random.Random(SEED)  # noqa: S311  # test data
    throttled, internal, right = error("ThrottlingException"), error("InternalServerError", 500), good("batch")
    history = random_.choices([throttled, internal, right], weights=[2, 3, 5], k=HISTORY)
    expected = [rig.attempts(stock.get_item, reply) for reply in history]
    assert expected == [rig.attempts(rig.ours.get_item, reply) for reply in history]
    # The quota was used up, and refilled, within that history.
    failed = [attempts for attempts, reply in zip(expected, history, strict=True) if reply is not right]
    assert {1, dynamodb.ATTEMPTS} <= set(failed)


@pytest.mark.parametrize("throttled", [False, True])
@pytest.mark.parametrize("attempt", [1, 2, 3, 12])
def test_the_back_off_is_botocores(monkeypatch: pytest.MonkeyPatch, attempt: int, *, throttled: bool) -> None:
    """Exponential with full jitter, from 25 ms, or from a second where throttled, up to 20 s."""
    monkeypatch.setattr(random, "random", lambda: 0.75)
    detector = type("Detector", (), {"is_throttling_error_from_context": lambda *_: throttled})()
    theirs = standard.ExponentialBackoff(
        random=lambda: 0.75, service_name="dynamodb", throttling_detector=detector
    ).delay_amount(standard.RetryContext(attempt))
    assert theirs == dynamodb.backoff(attempt, throttled=throttled)


@pytest.mark.parametrize("header", ["0", "7", "3000", "9999", "-1", "soon", "1e3", "", "9" * 5_000, "٣"])
def test_a_response_may_ask_for_a_longer_wait(header: str) -> None:
    """At most 5 seconds longer than the back-off, as botocore does it; what is not a number is ignored."""
    response = type("Response", (), {"headers": {"x-amz-retry-after": header}})()
    theirs = standard.ExponentialBackoff(random=lambda: 0.5, service_name="dynamodb")
    digits_only = header.isascii() and header.isdigit() and len(header) < 10
    expected = theirs.delay_amount(standard.RetryContext(1, http_response=response)) if digits_only else 0.0125
    assert expected == dynamodb._delay(0.0125, header)


def test_no_attempt_is_waited_for_that_could_not_begin_in_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throttled request fails at once when its back-off would pass the deadline."""
    rig.server.forever["batch"] = replace(error("ThrottlingException"), headers={"x-amz-retry-after": "5000"})
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    # The attempt takes 56 of 60 seconds.
    monkeypatch.setattr(dynamodb, "monotonic", lambda: 1_056.0 if rig.server.calls else 1_000.0)
    with dynamodb.deadline(1_060.0):
        cause = failure(rig.ours.get_item)
    assert [] == waits
    assert (Reason.THROTTLED, "ThrottlingException", 400, 1) == (cause.reason, cause.code, cause.status, cause.attempts)


# Reasons


@pytest.mark.parametrize(
    ("reply", "reason", "code", "status"),
    [
        (
            error("ProvisionedThroughputExceededException"),
            Reason.THROTTLED,
            "ProvisionedThroughputExceededException",
            400,
        ),
        (Reply(429), Reason.THROTTLED, None, 429),
        (error("InternalServerError", 500), Reason.SERVER_ERROR, "InternalServerError", 500),
        (Reply(502, b"<html>"), Reason.SERVER_ERROR, None, 502),
        (Reply(400, b'{"__type": 7}'), Reason.UNKNOWN, None, 400),
        (Reply(403, b"<html>Forbidden</html>"), Reason.UNKNOWN, None, 403),
        (replace(good("batch"), checksum=1), Reason.DAMAGED, "checksum", 200),
        (Reply(body=b'{"Item": '), Reason.DAMAGED, "DecodeError", None),
        (Reply(hang_up=True), Reason.UNREACHABLE, "RemoteDisconnected", None),
        (Reply(body=b"{", promised=2), Reason.DAMAGED, "IncompleteRead", None),
    ],
)
def test_a_failure_says_why(rig: Rig, reply: Reply, reason: Reason, code: str | None, status: int | None) -> None:
    """Throttled, damaged and unreachable are different problems to an operator."""
    rig.server.forever["batch"] = reply
    cause = failure(rig.ours.get_item)
    assert (reason, code, status) == (cause.reason, cause.code, cause.status)
    assert str(reason) in str(cause)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"{}", promised=10**25),
        Reply(body=b"{}", promised=2**62),
        Reply(body=b"[" * 200_000),
        Reply(400, b"[" * 200_000),
    ],
    ids=["a length beyond any number", "a length beyond memory", "nested", "a nested error"],
)
def test_nonsense_is_a_failed_request(rig: Rig, reply: Reply) -> None:
    """Whatever Python's own errors for it are; no connection stays open."""
    rig.server.forever["batch"] = reply
    assert failure(rig.ours.get_item).reason in (Reason.DAMAGED, Reason.UNKNOWN)


def test_credentials_that_cannot_be_renewed_are_an_outage(rig: Rig) -> None:
    def expired() -> Credentials:
        raise CredentialsUnavailable("expired") from ValueError("expired")

    client = Client(msgspec.structs.replace(endpoint(rig.server.address), credentials=expired))
    cause = failure(client.get_item)
    assert (Reason.NO_CREDENTIALS, 1) == (cause.reason, cause.attempts)
    assert not rig.server.calls


def test_every_address_of_a_host_is_tried(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the time to connect."""
    right = int(rig.server.address.rpartition(":")[2])
    with closed_port() as closed:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (closed, closed, right)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert bytes(rig.ours.get_item(**GET).raw)


def test_a_silent_server_is_told_from_a_missing_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamodb, "READ_TIMEOUT_SECONDS", 0.1)
    rig.server.forever["batch"] = replace(good("batch"), silent=30)
    assert (Reason.SILENT, dynamodb.ATTEMPTS) == ((cause := failure(rig.ours.get_item)).reason, cause.attempts)
    with closed_port() as port:
        cause = failure(Client(endpoint(f"http://127.0.0.1:{port}")).get_item)
    assert (Reason.UNREACHABLE, "ConnectionRefusedError") == (cause.reason, cause.code)


def test_without_time_nothing_is_sent(rig: Rig) -> None:
    with dynamodb.deadline(time.monotonic() - 1):
        cause = failure(rig.ours.get_item)
    assert (Reason.NO_TIME, 0) == (cause.reason, cause.attempts)
    assert not rig.server.calls


def test_a_refusal_has_dynamodbs_own_words(rig: Rig) -> None:
    rig.server.forever["batch"] = error("ResourceNotFoundException")
    with pytest.raises(RequestRefused, match="ResourceNotFoundException, status 400, 1 attempts, …") as caught:
        rig.ours.get_item(**GET)
    assert ("ResourceNotFoundException", 400) == (caught.value.code, caught.value.status)


# Connections


def test_a_connection_is_kept(rig: Rig) -> None:
    for _ in range(20):
        rig.ours.get_item(**GET)
    assert (20, 1) == (rig.server.calls["batch"], rig.server.connections)


def test_threads_share_a_client(rig: Rig) -> None:
    """Each response goes to the thread that asked."""
    found: list[bytes] = []

    def ask() -> None:
        for _ in range(25):
            found.append(bytes(rig.ours.get_item(**GET).raw))  # noqa: PERF401  # a list that threads share

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (200, 1) == (len(found), len(set(found)))
    assert rig.server.connections <= 8


def test_a_connection_that_was_closed_while_idle_is_replaced(rig: Rig) -> None:
    """As after a function was frozen for minutes: no attempt is lost, and nothing is seen."""
    for number in range(1, 4):
        rig.ours.get_item(**GET)
        rig.server.close_connections()
        assert number == rig.server.connections
    assert 3 == rig.server.calls["batch"]


def test_a_connection_that_closes_at_the_moment_of_use_is_replaced_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retry neither waits nor costs tokens: that the other side closes an idle connection is not a failure."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    for _ in range(60):
        rig.ours.get_item(**GET)
        rig.server.once["batch"] = Reply(hang_up=True)
        rig.ours.get_item(**GET)
    assert [] == waits
    assert 180 == rig.server.calls["batch"]


def test_a_response_that_asks_to_close_is_the_last_of_its_connection(rig: Rig) -> None:
    rig.server.forever["batch"] = replace(good("batch"), headers={"Connection": "close"})
    for _ in range(3):
        rig.ours.get_item(**GET)
    assert 3 == rig.server.connections


def test_a_closed_client_connects_again(rig: Rig) -> None:
    rig.ours.get_item(**GET)
    rig.ours.close()
    rig.ours.get_item(**GET)
    assert 2 == rig.server.connections


# TLS and proxies


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem")


@pytest.fixture
def secure(certificate: Path) -> Iterator[Faulty]:
    """The server behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as server:
        yield server


def test_tls_with_an_authority_of_ones_own(secure: Faulty, certificate: Path) -> None:
    client = Client(endpoint(secure.address, ca_bundle=str(certificate)))
    assert bytes(client.get_item(**GET).raw)
    assert bytes(client.get_item(**GET).raw)
    assert 1 == secure.connections
    secure.close_connections()
    assert bytes(client.get_item(**GET).raw)
    assert 2 == secure.connections
    client.close()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read_are_a_configuration_error(tmp_path: Path, content: str | None) -> None:
    """The message names the file, which `AWS_CA_BUNDLE` or the configuration file names."""
    bundle = tmp_path / "authorities.pem"
    if content is not None:
        bundle.write_text(content)
    with pytest.raises(ConfigurationError, match=r"authorities\.pem"):
        Client(endpoint("https://localhost:1", ca_bundle=str(bundle)))


def test_a_certificate_of_an_unknown_authority_is_refused(secure: Faulty) -> None:
    cause = failure(Client(endpoint(secure.address)).get_item)
    assert (Reason.UNREACHABLE, "SSLCertVerificationError") == (cause.reason, cause.code)
    assert not secure.calls


def test_a_certificate_for_another_host_is_refused(secure: Faulty, certificate: Path) -> None:
    address = secure.address.replace("localhost", "127.0.0.1")
    cause = failure(Client(endpoint(address, ca_bundle=str(certificate))).get_item)
    assert (Reason.UNREACHABLE, "SSLCertVerificationError") == (cause.reason, cause.code)
    assert not secure.calls


@contextlib.contextmanager
def proxy_to(server: Faulty, heads: list[bytes]) -> Iterator[int]:
    """Run a proxy for one connection to the server, which keeps the head of its request; yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, target: socket.socket) -> None:
        while piece := source.recv(65_536):
            target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        heads.append(head)
        with client, socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as target:
            if head.startswith(b"CONNECT"):
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                target.sendall(head)
            back = threading.Thread(target=forward, args=(target, client))
            back.start()
            forward(client, target)
            back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    with listener:
        yield listener.getsockname()[1]
        thread.join()


def test_a_proxy_is_asked_for_a_tunnel(secure: Faulty, certificate: Path) -> None:
    """TLS goes to the endpoint itself; the proxy sees its own credentials and nothing of the request."""
    heads: list[bytes] = []
    with proxy_to(secure, heads) as port:
        proxy = Proxy("127.0.0.1", port, {"Proxy-Authorization": "Basic bWU6cGFzcw=="})
        client = Client(endpoint(secure.address, ca_bundle=str(certificate), proxy=proxy))
        assert bytes(client.get_item(**GET).raw)
        client.close()
    assert heads[0].startswith(b"CONNECT localhost:")
    assert b"Basic bWU6cGFzcw==" in heads[0]
    assert b"x-amz" not in heads[0]


@contextlib.contextmanager
def unhelpful_proxy(response: bytes, pause: float = 0) -> Iterator[int]:
    """Run a proxy that answers each connection so, byte by byte; yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    client.recv(65_536)
                    for byte in response:
                        over.wait(pause)
                        client.sendall(bytes([byte]))

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    over.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_proxy_that_refuses_a_tunnel_says_why(certificate: Path) -> None:
    with unhelpful_proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as port:
        client = Client(endpoint("https://localhost:1", ca_bundle=str(certificate), proxy=Proxy("127.0.0.1", port, {})))
        cause = failure(client.get_item)
    assert Reason.UNREACHABLE == cause.reason
    assert "407 Proxy Authentication Required" in str(cause)


def test_a_proxy_that_trickles_is_given_up_in_time(certificate: Path) -> None:
    with unhelpful_proxy(b"HTTP/1.1 200 Connected\r\n" + b"X: y\r\n" * 1_000, pause=0.02) as port:
        client = Client(endpoint("https://localhost:1", ca_bundle=str(certificate), proxy=Proxy("127.0.0.1", port, {})))
        at = time.monotonic() + 1
        with dynamodb.deadline(at):
            failure(client.get_item)
        # The whole response takes two minutes.
        assert time.monotonic() < at + 30


def test_a_proxy_without_tls_is_asked_for_the_whole_address(rig: Rig) -> None:
    heads: list[bytes] = []
    with proxy_to(rig.server, heads) as port:
        client = Client(endpoint(rig.server.address, proxy=Proxy("127.0.0.1", port, {})))
        assert bytes(client.get_item(**GET).raw)
        client.close()
    assert heads[0].startswith(f"POST {rig.server.address}/ HTTP/1.1\r\n".encode())


def test_the_seconds_left_are_those_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a deadline they have no end."""
    monkeypatch.setattr(dynamodb, "monotonic", lambda: 1_000.0)
    assert math.inf == dynamodb.seconds_left()
    with dynamodb.deadline(1_100.0):
        assert 100.0 == dynamodb.seconds_left()
    assert math.inf == dynamodb.seconds_left()

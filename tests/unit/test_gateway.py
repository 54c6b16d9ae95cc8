"""The adapter between HTTP and the proxy event of a REST API."""

import base64
import io
import json
import re

import pytest
from werkzeug import Request, Response
from werkzeug.test import Client, EnvironBuilder

from local_cloud.gateway import (
    LARGEST_ANSWER,
    SENT_HEADERS,
    bad_gateway,
    respond,
    to_event,
    to_response,
)
from local_cloud.proxy_event import RESOURCES, STAGE, Event
from local_cloud.template import read

PATH = "/api/v1/scrape/batch/batch_xyz789/progress"


def request(
    path: str = PATH,
    query: str = "",
    *,
    method: str = "GET",
    headers: list[tuple[str, str]] | None = None,
    body: bytes = b"",
) -> Request:
    """Return a request with path and headers as they were sent."""
    environ = EnvironBuilder(
        method=method, base_url="http://127.0.0.1:3000", input_stream=io.BytesIO(body)
    ).get_environ()
    environ |= {
        "REQUEST_URI": f"{path}?{query}" if query else path,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(body)),
        "REMOTE_ADDR": "127.0.0.1",
        SENT_HEADERS: headers or [("Host", "127.0.0.1:3000")],
    }
    return Request(environ)


def received(answer: object, method: str = "GET") -> tuple[Response, bytes]:
    """Return a response and its body as a client receives them."""
    response = to_response(answer, method)
    client = Client(response)
    return response, client.open(method=method).get_data()


def test_it_plays_the_gateway_that_the_template_declares() -> None:
    """It has the template's stage and resources, and its response when the function fails."""
    resources = read()["Resources"]
    events = resources["ProgressFunction"]["Properties"]["Events"].values()
    declared = resources["Api"]["Properties"]
    failure = declared["GatewayResponses"]["INTEGRATION_FAILURE"]
    response = bad_gateway("an id")
    assert (STAGE, sorted(RESOURCES)) == (
        declared["StageName"],
        sorted(event["Properties"]["Path"] for event in events),
    )
    assert failure["StatusCode"] == str(response.status_code)
    assert set(failure["ResponseParameters"]["Headers"]) <= set(response.headers.keys())
    template = failure["ResponseTemplates"]["application/json"].replace("$context.requestId", "an id")
    assert json.loads(template) == json.loads(response.get_data())


@pytest.mark.parametrize(
    ("path", "resource", "parameters"),
    [
        (PATH, RESOURCES[0], {"batch_id": "batch_xyz789"}),
        (PATH + "/", RESOURCES[0], {"batch_id": "batch_xyz789"}),
        ("/v1/scrape/batch/b/progress", RESOURCES[1], {"batch_id": "b"}),
        ("/v1/scrape/batch/a%2Fb/progress", RESOURCES[1], {"batch_id": "a%2Fb"}),
        ("/v1/scrape/batch/%C3%A4%20+/progress", RESOURCES[1], {"batch_id": "%C3%A4%20+"}),
        ("/", "/", None),
        ("/v1/scrape/batch//progress", "/{proxy+}", {"proxy": "v1/scrape/batch//progress"}),
        ("/v1/scrape/batch/b/progress/more/", "/{proxy+}", {"proxy": "v1/scrape/batch/b/progress/more"}),
        ("/API/v1/scrape/batch/b/progress", "/{proxy+}", {"proxy": "API/v1/scrape/batch/b/progress"}),
    ],
)
def test_a_path_finds_its_resource(path: str, resource: str, parameters: dict[str, str] | None) -> None:
    """Paths and their parameters stay percent-encoded. Trailing slashes are ignored."""
    event = to_event(request(path))
    assert (resource, parameters, path) == (event["resource"], event["pathParameters"], event["path"])


def test_a_proxys_client_sends_the_whole_address() -> None:
    """A request target in absolute form matches the same resource."""
    event = to_event(request(f"http://api.example.com{PATH}", "limit=1"))
    assert (RESOURCES[0], PATH) == (event["resource"], event["path"])


@pytest.mark.parametrize(
    ("query", "last", "every"),
    [
        ("", None, None),
        ("limit=5", {"limit": "5"}, {"limit": ["5"]}),
        ("limit=1&limit=2", {"limit": "2"}, {"limit": ["1", "2"]}),
        ("limit=", {"limit": ""}, {"limit": [""]}),
        ("limit", {"limit": ""}, {"limit": [""]}),
        ("a%20b=c%2Bd+e&x=%C3%A4%F0%9F%98%80", {"a b": "c+d e", "x": "ä😀"}, {"a b": ["c+d e"], "x": ["ä😀"]}),
    ],
)
def test_query_parameters_are_decoded(query: str, last: object, every: object) -> None:
    """One map has the last value of each parameter, the other one all values. Without a query both are null."""
    event = to_event(request(query=query))
    assert (last, every) == (event["queryStringParameters"], event["multiValueQueryStringParameters"])


def test_a_header_sent_twice_keeps_both_values() -> None:
    """The function must see that a header was sent twice, in any case."""
    event = to_event(request(headers=[("x-api-key", "one"), ("Accept", "*/*"), ("X-API-Key", "two")]))
    several, single = event["multiValueHeaders"], event["headers"]
    assert isinstance(several, dict)
    assert isinstance(single, dict)
    assert {"x-api-key": ["one", "two"], "Accept": ["*/*"]} == {name: several[name] for name in ("x-api-key", "Accept")}
    assert "two" == single["x-api-key"]


def test_a_client_cannot_say_what_the_gateway_says() -> None:
    """The gateway sets protocol and port."""
    event = to_event(request(headers=[("x-forwarded-proto", "gopher"), ("X-Forwarded-Port", "1")]))
    assert {"X-Forwarded-Proto": ["http"], "X-Forwarded-Port": ["3000"]} == event["multiValueHeaders"]


def test_a_body_travels_as_base64() -> None:
    """The API treats every media type as binary."""
    event = to_event(request(method="POST", body=b"\x00\xff"))
    assert ("POST", b"\x00\xff", True) == (
        event["httpMethod"],
        base64.b64decode(str(event["body"])),
        event["isBase64Encoded"],
    )


def test_no_body_is_null() -> None:
    assert to_event(request())["body"] is None


def test_every_request_has_its_own_id() -> None:
    """The context has the request's id, stage, resource and source."""
    first, second = (to_event(request())["requestContext"] for _ in range(2))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["requestId"] != second["requestId"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first["requestId"])
    assert (RESOURCES[0], f"/{first['stage']}{PATH}", "GET") == (
        first["resourcePath"],
        first["path"],
        first["httpMethod"],
    )
    assert "127.0.0.1" == first["identity"]["sourceIp"]


def test_an_answer_becomes_a_response() -> None:
    """It has the headers of both maps. For a header in both, the multi-value map wins."""
    answer = {
        "statusCode": 429,
        "headers": {"Retry-After": 5, "link": "gone"},
        "multiValueHeaders": {"Link": ["a", "b"], "Content-Type": ["text/plain"]},
        "body": "ä",
    }
    response, body = received(answer)
    assert (429, "5", ["a", "b"], ["text/plain"], "2", "ä") == (
        response.status_code,
        response.headers["Retry-After"],
        response.headers.getlist("Link"),
        response.headers.getlist("Content-Type"),
        response.headers["Content-Length"],
        body.decode(),
    )


def test_an_answer_without_a_media_type_is_json() -> None:
    response, body = received({"statusCode": 200})
    assert ("application/json", b"") == (response.headers["Content-Type"], body)


def test_a_base64_body_arrives_as_bytes() -> None:
    answer = {"statusCode": 200, "body": base64.b64encode(b"\x1f\x8b\x00").decode(), "isBase64Encoded": True}
    response, body = received(answer)
    assert (b"\x1f\x8b\x00", 3) == (body, response.content_length)


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        ({"statusCode": 200, "body": "12345"}, "5"),
        ({"statusCode": 200, "body": "12345", "headers": {"content-length": "99"}}, "99"),
        ({"statusCode": 200, "headers": {"Content-Length": "99"}}, "99"),
        ({"statusCode": 200}, None),
    ],
)
def test_head_has_a_length_and_no_body(answer: Event, length: str | None) -> None:
    """HEAD has the `Content-Length` of GET if it is known, and never a wrong one."""
    response, body = received(answer, "HEAD")
    assert (b"", length) == (body, response.headers.get("Content-Length"))


def test_the_true_length_wins_where_there_is_a_body() -> None:
    response, _ = received({"statusCode": 200, "body": "12345", "headers": {"content-length": "1"}})
    assert ["5"] == response.headers.getlist("Content-Length")


def test_not_modified_has_no_body() -> None:
    response, body = received({"statusCode": 304, "headers": {"ETag": 'W/"1"'}})
    assert (304, b"", 'W/"1"') == (response.status_code, body, response.headers["ETag"])


def crash(_event: Event) -> object:
    raise RuntimeError("secret")


@pytest.mark.parametrize(
    "handler",
    [
        crash,
        lambda _event: None,
        lambda _event: "text",
        lambda _event: {"statusCode": "abc"},
        lambda _event: {"statusCode": 200, "body": {"not": "text"}},
        lambda _event: {"statusCode": 200, "body": b"bytes"},
        lambda _event: {"statusCode": 200, "success": True},
        lambda _event: {"statusCode": 200, "headers": {"X": None}},
        lambda _event: {"statusCode": 200, "headers": {"X": "a\r\nSet-Cookie: b"}},
        lambda _event: {"statusCode": 200, "body": "not base64!", "isBase64Encoded": True},
        lambda _event: {"statusCode": 200, "body": "x" * LARGEST_ANSWER},
    ],
)
def test_a_function_that_fails_is_a_bad_gateway(handler: object, caplog: pytest.LogCaptureFixture) -> None:
    """A crash or an invalid answer is a 502 in the error envelope. Only the log has its cause."""
    assert callable(handler)
    response = respond(request(), handler)
    body = json.loads(response.get_data())
    assert (502, "application/json", "no-store") == (
        response.status_code,
        response.headers["Content-Type"],
        response.headers["Cache-Control"],
    )
    assert (False, "BAD_GATEWAY", "server_error", 502, {}, None) == (
        body["success"],
        *(body["error"][key] for key in ("code", "type", "status", "details", "timestamp")),
    )
    assert response.headers["X-Request-Id"] == body["error"]["trace_id"]
    assert "secret" not in response.get_data(as_text=True)
    assert 1 == len(caplog.records)


def test_a_good_answer_passes() -> None:
    """The handler gets the event, and the client gets the answer."""
    response = respond(request(), lambda event: {"statusCode": 200, "body": json.dumps(event["pathParameters"])})
    assert (200, {"batch_id": "batch_xyz789"}) == (response.status_code, json.loads(response.get_data()))

"""`batch-progress token`: tokens that the function itself accepts and refuses."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import jwt
import pytest
from typer.testing import CliRunner, Result

from batch_progress.tokens import session_owner
from batch_progress_cli.main import app
from functions.progress import app as function
from tests.integration.server import LocalApi
from tests.integration.world import World, attributes, now, progress_path, unique

# The `world` fixture sets the environment variables in which the commands find the table.
pytestmark = pytest.mark.usefixtures("world")

CONFLICT = "ConditionalCheckFailedException"
STACK = """\
<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult><Stacks><member>
<StackName>batch-progress</StackName><CreationTime>2026-11-24T10:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus>
<Outputs><member><OutputKey>{output}</OutputKey><OutputValue>{table}</OutputValue></member></Outputs>
</member></Stacks></DescribeStacksResult></DescribeStacksResponse>"""


def token(*arguments: str, stdin: str | None = None) -> Result:
    """Run `batch-progress token` on the world's table."""
    return CliRunner().invoke(app, ["token", *arguments], input=stdin)


def issued(*arguments: str) -> str:
    """Issue a token and return it."""
    done = token("issue", *arguments)
    assert 0 == done.exit_code, done.stderr
    return done.stdout.removesuffix("\n")


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def hashes_of(world: World, owner: str) -> list[str]:
    """Return the hashes of an owner's tokens, from all pages of the table that other tests fill, too."""
    pages = world.dynamodb.get_paginator("scan").paginate(
        TableName=world.tokens_table,
        FilterExpression="owner_id = :owner",
        ExpressionAttributeValues=attributes({":owner": owner}),
    )
    return [item["token_hash"]["S"] for page in pages for item in page["Items"]]


def outcome(world: World, secret: str, batch_id: str) -> tuple[int, str | None]:
    """Send a request with a token; return the status and the error code."""
    function._tokens.cache_clear()  # the function caches tokens for 30 seconds
    answer = world.request("GET", progress_path(batch_id), [("X-API-Key", secret)])
    return answer.status, None if answer.status == 200 else answer.error["code"]


def test_a_token_works_at_once_for_its_owners_batches_alone(world: World) -> None:
    mine, other = world.put_batch(owner="alice"), world.put_batch(owner="bob")
    secret = issued("--owner", "alice")
    assert (200, None) == outcome(world, secret, mine)
    assert (404, "BATCH_NOT_FOUND") == outcome(world, secret, other)


def test_the_token_alone_is_on_stdout_and_nowhere_else(world: World) -> None:
    """So `token=$(batch-progress token issue …)` works. The table has the token's hash."""
    done = token("issue", "--owner", "alice", "--label", "her laptop", "--expires-in", "30d")
    secret = done.stdout.removesuffix("\n")
    assert 46 == len(secret)
    assert secret.isprintable()
    assert secret not in done.stderr
    assert done.stderr.startswith("Good for the batches of alice until ")
    item = world.dynamodb.get_item(TableName=world.tokens_table, Key=attributes({"token_hash": hash_of(secret)}))[
        "Item"
    ]
    assert {"token_hash", "owner_id", "label", "created_at", "expires_at"} == set(item)
    assert secret not in str(item)
    assert 30 * 86_400 - 60 < int(item["expires_at"]["N"]) - time.time() <= 30 * 86_400


def test_an_expired_token_is_refused(world: World, later: Callable[[float], None]) -> None:
    secret, batch_id = issued("--owner", "demo", "--expires-in", "1h"), world.put_batch()
    assert (200, None) == outcome(world, secret, batch_id)
    later(3_601)
    assert (401, "API_KEY_EXPIRED") == outcome(world, secret, batch_id)


def test_no_two_tokens_are_the_same() -> None:
    assert 5 == len({issued("--owner", "demo") for _ in range(5)})


@pytest.mark.parametrize("owner", ["", " alice", "al\x1bice", "a" * 257])
def test_an_owner_that_a_table_should_not_have_is_refused(owner: str) -> None:
    done = token("issue", "--owner", owner)
    assert (2, "", 1) == (done.exit_code, done.stdout, done.stderr.count("\n"))


def test_a_token_for_one_batch_opens_no_other_one(world: World) -> None:
    mine, other = world.put_batch(owner="alice"), world.put_batch(owner="alice")
    done = token("issue", "--owner", "alice", "--batch", mine, "--expires-in", "7d")
    secret = done.stdout.removesuffix("\n")
    assert done.stderr.startswith(f"Good for {mine} of alice until ")
    assert (200, None) == outcome(world, secret, mine)
    assert (404, "BATCH_NOT_FOUND") == outcome(world, secret, other)
    (row,) = [line for line in token("list").stdout.splitlines() if hash_of(secret)[:12] in line]
    assert ["alice", mine] == row.split()[:2]


@pytest.mark.parametrize(
    "api", ["https://abc.execute-api.eu-central-1.amazonaws.com/prod", "https://abc.example/", "http://127.0.0.1:3000"]
)
def test_a_link_to_share_has_the_token_in_its_fragment_alone(world: World, api: str) -> None:
    """A browser does not send the fragment to the server. The link is all that stdout has."""
    batch_id = world.put_batch()
    done = token("issue", "--owner", "demo", "--batch", batch_id, "--link", api)
    address, _, secret = done.stdout.removesuffix("\n").partition("#token=")
    assert f"{api.rstrip('/')}/watch/{batch_id}" == address
    assert (200, None) == outcome(world, secret, batch_id)
    assert secret not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--link", "https://abc.example"],
        ["--batch", "batch x"],
        ["--batch", "batch_x" * 20],
        ["--batch", "batch_x", "--link", "http://abc.example"],
        ["--batch", "batch_x", "--link", "abc.example"],
        ["--batch", "batch_x", "--link", "https://"],
        ["--batch", "batch_x", "--link", "https://[::1"],
        ["--batch", "batch_x", "--link", "https://abc.example/?a=1"],
        ["--batch", "batch_x", "--link", "https://abc.example/#a"],
        ["--batch", "batch_x", "--link", "https://abc@evil.example"],
    ],
    ids=" ".join,
)
def test_a_link_or_a_batch_that_cannot_be_is_refused_and_no_token_is_made(world: World, arguments: list[str]) -> None:
    """A link over plain HTTP would send the token in the clear."""
    owner = unique("owner")
    done = token("issue", "--owner", owner, *arguments)
    assert (2, "", 1) == (done.exit_code, done.stdout, done.stderr.count("\n"))
    assert [] == hashes_of(world, owner)


def test_a_token_that_cannot_be_printed_can_be_revoked(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its owner should have a token, and this one reached no one. Its hash is named."""
    owner = unique("owner")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        with pytest.raises(SystemExit, match="2"):
            app(["token", "issue", "--owner", owner])
    (made,) = hashes_of(world, owner)
    assert (
        f"batch-progress: the token could not be printed; revoke it: token revoke {made[:12]}\n"
        == capsys.readouterr().err
    )


@pytest.mark.parametrize("way", ["token", "standard input", "dash", "hash", "prefix"])
def test_a_revoked_token_is_refused(world: World, way: str) -> None:
    """`revoke` takes the token, its hash or a prefix of the hash. Standard input keeps a token out of the history."""
    batch_id, secret = world.put_batch(), issued("--owner", "demo")
    done = {
        "token": lambda: token("revoke", secret),
        "standard input": lambda: token("revoke", stdin=f"{secret}\n"),
        "dash": lambda: token("revoke", "-", stdin=secret),
        "hash": lambda: token("revoke", hash_of(secret)),
        "prefix": lambda: token("revoke", hash_of(secret)[:12]),
    }[way]()
    assert (0, f"Revoked hash {hash_of(secret)[:12]} of demo.\n") == (done.exit_code, done.stdout)
    assert (401, "API_KEY_DEACTIVATED") == outcome(world, secret, batch_id)


def test_revoking_again_changes_nothing(world: World) -> None:
    """The first time of revocation stays."""
    secret = issued("--owner", "demo")
    token("revoke", secret)
    key = attributes({"token_hash": hash_of(secret)})
    before = world.dynamodb.get_item(TableName=world.tokens_table, Key=key)["Item"]
    done = token("revoke", secret)
    assert 0 == done.exit_code
    assert done.stdout.startswith("Already revoked: ")
    assert before == world.dynamodb.get_item(TableName=world.tokens_table, Key=key)["Item"]


def test_revoking_an_unknown_token_creates_none(world: World) -> None:
    secret = unique("never-issued")
    done = token("revoke", secret)
    assert (2, "batch-progress: no such token in this table\n") == (done.exit_code, done.stderr)
    key = attributes({"token_hash": hash_of(secret)})
    assert "Item" not in world.dynamodb.get_item(TableName=world.tokens_table, Key=key)


def test_a_prefix_of_several_hashes_revokes_none(world: World) -> None:
    for last in "ab":
        world.dynamodb.put_item(
            TableName=world.tokens_table, Item=attributes({"token_hash": "c0ffee" * 10 + "000" + last, "owner_id": "x"})
        )
    done = token("revoke", "c0ffeec0ffee")
    assert 2 == done.exit_code
    assert "2 tokens have hashes that begin with c0ffeec0ffee; give more characters" in done.stderr


def test_a_token_that_looks_like_a_hash_is_a_token(world: World) -> None:
    """The token may have been made by hand, and another token's hash may begin with it."""
    secret = "abcdef0123456789"
    world.put_token(secret)
    world.dynamodb.put_item(
        TableName=world.tokens_table, Item=attributes({"token_hash": secret + "0" * 48, "owner_id": "other"})
    )
    assert f"Revoked hash {hash_of(secret)[:12]} of demo.\n" == token("revoke", secret).stdout


def test_the_list_shows_everything_but_tokens() -> None:
    owner = unique("owner")
    first = issued("--owner", owner, "--label", "one")
    second = issued("--owner", owner, "--expires-in", "1d")
    token("revoke", first)
    lines = token("list").stdout.splitlines()
    assert ["OWNER", "BATCH", "LABEL", "CREATED", "EXPIRES", "REVOKED", "HASH"] == lines[0].split()
    rows = [line.split() for line in lines if line.startswith(owner)]
    assert [("one", "-", hash_of(first)[:12]), ("-", "-", hash_of(second)[:12])] == [
        (row[2], row[4] if row[2] == "one" else row[5], row[6]) for row in rows
    ]
    assert first not in "".join(lines)


def test_the_list_is_of_every_page_and_shows_hostile_labels_as_text(world: World) -> None:
    """A page of a scan is 1 MB. Other writers may have written the labels."""
    owner = unique("owner")
    for _ in range(4):
        world.put_token(owner=owner, label="\x1b]0;owned\x07" + "x" * 350_000, expires_at={"S": "soon"})
    shown = [line for line in token("list").stdout.splitlines() if line.startswith(owner)]
    assert 4 == len(shown)
    assert all(line.isprintable() and "bad: soon" in line for line in shown)


class Stack(BaseHTTPRequestHandler):
    """A CloudFormation with one stack."""

    body = ""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body.encode())

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # its name there
        """Log nothing."""


@pytest.fixture
def cloudformation(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Stack]]:
    """A fake CloudFormation, and an environment without the table's name."""
    monkeypatch.delenv("BATCH_PROGRESS_TOKENS_TABLE")
    with HTTPServer(("127.0.0.1", 0), Stack) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Stack
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("arguments", [(), ("--stack", "batch-progress")])
def test_the_stack_tells_its_table(world: World, cloudformation: type[Stack], arguments: Sequence[str]) -> None:
    cloudformation.body = STACK.format(output="TokensTableName", table=world.tokens_table)
    key = attributes({"token_hash": hash_of(issued("--owner", "demo", *arguments))})
    assert "Item" in world.dynamodb.get_item(TableName=world.tokens_table, Key=key)


def test_a_stack_without_the_output_is_one_line(cloudformation: type[Stack]) -> None:
    cloudformation.body = STACK.format(output="Other", table="t")
    done = token("list", "--stack", "mine")
    assert (2, "batch-progress: the stack mine has no output TokensTableName\n") == (done.exit_code, done.stderr)


def test_a_missing_table_is_one_line() -> None:
    done = token("list", "--table", "nowhere")
    said = "batch-progress: there is no such table; --table, --stack and --local choose another\n"
    assert (2, said) == (done.exit_code, done.stderr)


def test_a_table_of_other_items_is_one_line(world: World) -> None:
    """Someone names the jobs table."""
    world.put_batch()
    done = token("list", "--table", world.jobs_table)
    said = "batch-progress: this is not a table of tokens: its items have no token_hash\n"
    assert (2, said) == (done.exit_code, done.stderr)


def test_on_the_local_server_it_takes_no_more_than_its_port(local_api: LocalApi) -> None:
    """The port also answers DynamoDB's requests. The token works, and the list has the demo token."""
    port = local_api.address.rpartition(":")[2]
    secret = issued("--owner", "demo", "--local", port)
    ask = f"{local_api.address}{progress_path('batch_xyz789')}"
    assert 200 == httpx.get(ask, headers={"X-API-Key": secret}).status_code
    assert hash_of("demo-token")[:12] in token("list", "--local", port).stdout
    assert 0 == token("revoke", secret, "--local", port).exit_code


def test_a_token_is_never_written_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the same token were generated twice, the second owner would replace the first."""
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "same")
    world.put_token("bp_same", owner="alice", created_at=now())
    done = token("issue", "--owner", "bob")
    assert (2, "") == (done.exit_code, done.stdout)
    assert CONFLICT in done.stderr


# Session tokens


def test_a_key_may_be_issued_for_the_owner_of_sessions(world: World) -> None:
    """`--issuer` makes an API key for the same batches as the owner's session tokens."""
    issuer = "https://issuer.example.com/"
    batch_id = world.put_batch(owner=session_owner(issuer, "alice"))
    secret = issued("--owner", "alice", "--issuer", issuer)
    assert (200, None) == outcome(world, secret, batch_id)
    assert (404, "BATCH_NOT_FOUND") == outcome(world, secret, world.put_batch(owner="alice"))
    assert f"{issuer}#alice" in token("list").stdout


@pytest.mark.parametrize("issuer", ["issuer.example.com", "https://", "https://a b", "https://a#b", "https://a?b", " "])
def test_an_invalid_issuer_is_one_line(issuer: str) -> None:
    done = token("issue", "--owner", "alice", "--issuer", issuer)
    assert (2, "") == (done.exit_code, done.stdout)
    assert 1 == len(done.stderr.splitlines())


def test_an_owner_called_as_one_of_sessions_is_refused() -> None:
    """The function would refuse its token: the name could imitate a session owner."""
    done = token("issue", "--owner", "https://issuer.example.com#alice")
    assert (2, "") == (done.exit_code, done.stdout)
    assert "--issuer" in done.stderr


def test_the_local_issuer_signs_for_any_owner(local_api: LocalApi) -> None:
    """Only the token is on stdout. It lasts as long as requested and can read `batch_session`."""
    done = session(local_api, "--owner", "demo", "--expires-in", "90s")
    claims = jwt.decode(done.stdout.strip(), options={"verify_signature": False})
    assert ("demo", 90) == (claims["sub"], claims["exp"] - claims["iat"])
    bearer = {"Authorization": f"Bearer {done.stdout.strip()}"}
    answer = httpx.get(local_api.address + progress_path("batch_session"), headers=bearer)
    assert (200, 10) == (answer.status_code, answer.json()["data"]["total_urls"])
    assert 404 == httpx.get(local_api.address + progress_path("batch_xyz789"), headers=bearer).status_code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--owner", ""], "the owner is empty"),
        (["--owner", "x" * 257], "length <= 256"),
        (["--owner", "demo", "--expires-in", "99999d"], "<= "),
        (["--owner", "demo", "--expires-in", "soon"], "'soon' is not a time span"),
        (["--owner", "demo", "--local", "1"], "nothing answers at http://127.0.0.1:1"),
    ],
)
def test_what_the_local_issuer_cannot_do_is_one_line(local_api: LocalApi, arguments: list[str], said: str) -> None:
    done = session(local_api, *arguments)
    assert (2, "") == (done.exit_code, done.stdout)
    assert said in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_another_server_at_that_port_is_one_line() -> None:
    """Any response of another server gives an error of one line."""

    class Other(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        done = token("jwt", "--owner", "demo", "--local", str(other.server_port))
        thread.join()
    assert (2, 1) == (done.exit_code, len(done.stderr.splitlines()))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/issuer/token", None, 405),
        ("GET", "/issuer/", None, 404),
        ("GET", "/issuer/other", None, 404),
        ("POST", "/issuer/token", b"", 400),
        ("POST", "/issuer/token", b"\xff", 400),
        ("POST", "/issuer/token", b'{"owner": "demo"}', 400),
        ("POST", "/issuer/token", b'{"owner": "demo", "seconds": 1, "sub": "other"}', 400),
        ("POST", "/issuer/token", b'{"owner": "demo", "seconds": -1}', 400),
    ],
)
def test_what_the_local_issuer_does_not_take(
    local_api: LocalApi, method: str, path: str, body: bytes | None, status: int
) -> None:
    assert status == httpx.request(method, local_api.address + path, content=body).status_code


def session(api: LocalApi, *arguments: str) -> Result:
    """Run `token jwt` for the local server, unless the arguments name another one."""
    return token("jwt", "--local", api.address.rpartition(":")[2], *arguments)

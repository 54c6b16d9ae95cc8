"""An HTTP server that misbehaves as its replies say: late, slow, cut, damaged, reset."""

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CHECKSUM: Final = "x-amz-crc32"


@dataclass(frozen=True)
class Reply:
    """The response to one request, with its faults.

    Attributes:
        status: The HTTP status.
        body: The body as it is sent.
        headers: All headers except length and checksum.
        checksum: The body's CRC-32 as DynamoDB sends it; `None` sends none.
        promised: The value of `Content-Length`; `None` sends the body's length.
        silent: Seconds before anything is sent.
        pause: Seconds before each piece of the body.
        piece: Bytes in a piece; 0 for the whole body.
        head_pause: Seconds before each single byte of the status line and the headers.
        stall: Seconds between the end of the body and the end of the connection.
        reset: Number of body bytes before the connection is reset; 0 resets it before the status line.
        hang_up: Close the connection and send nothing.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    checksum: int | None = None
    promised: int | None = None
    silent: float = 0
    pause: float = 0
    piece: int = 0
    head_pause: float = 0
    stall: float = 0
    reset: int | None = None
    hang_up: bool = False


# Operation (of a GET request its target), headers and body of a request.
type Answer = Callable[[str, dict[str, str], bytes], Reply]


@dataclass
class Misbehaving:
    """A running server.

    Attributes:
        address: Where it listens.
        connections: How many connections were opened.
        sockets: Those connections.
        over: Ends every wait of the server once it is set.
    """

    address: str = ""
    connections: int = 0
    sockets: list[socket.socket] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def close_connections(self) -> None:
        """Close the connections from this side, and wait until the clients can notice."""
        while self.sockets:
            with contextlib.suppress(OSError):
                self.sockets.pop().shutdown(socket.SHUT_RDWR)
        time.sleep(0.05)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    # A client may hang up while the server still waits.
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Ignore clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_state: Misbehaving
    answer: Answer

    def setup(self) -> None:
        super().setup()
        self.server_state.connections += 1
        self.server_state.sockets.append(self.connection)

    def log_message(self, *_: object) -> None:
        """Keep the terminal clean."""

    def do_GET(self) -> None:
        self._send(type(self).answer(self.path, dict(self.headers.items()), b""))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        self._send(type(self).answer(operation, dict(self.headers.items()), body))

    def _send(self, reply: Reply) -> None:
        over = self.server_state.over
        over.wait(reply.silent)
        if reply.hang_up:
            self.close_connection = True
            return
        if reply.reset == 0:
            self._reset()
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        promised = len(reply.body) if reply.promised is None else reply.promised
        self.send_header("Content-Length", str(promised))
        if reply.checksum is not None:
            self.send_header(CHECKSUM, str(reply.checksum))
        # What `end_headers` does, at the reply's pace.
        head: bytes = b"".join(self._headers_buffer) + b"\r\n"
        self._headers_buffer: list[bytes] = []
        self._write(head, reply.head_pause, 1 if reply.head_pause else len(head))
        if reply.reset is not None:
            self.wfile.write(reply.body[: reply.reset])
            self._reset()
            return
        self._write(reply.body, reply.pause, reply.piece or len(reply.body) or 1)
        over.wait(reply.stall)
        self.close_connection = promised != len(reply.body)

    def _write(self, content: bytes, pause: float, step: int) -> None:
        for at in range(0, len(content), step):
            self.server_state.over.wait(pause)
            self.wfile.write(content[at : at + step])

    def _reset(self) -> None:
        # Closing without lingering sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Close the descriptor directly: the server's own way sends FIN first.
        os.close(self.connection.detach())
        self.close_connection = True


def write_certificate(file: Path) -> Path:
    """Write a self-signed certificate for localhost, with its key, and return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@contextlib.contextmanager
def misbehaving(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Misbehaving]:
    """Serve on a free port of this machine while the block runs, with TLS if a context is given."""
    state = Misbehaving()
    handler = type("Handler", (_Handler,), {"server_state": state, "answer": staticmethod(answer)})
    server = _Server(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.address = f"https://localhost:{server.server_port}" if tls else f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        # Needed even if a test fails: otherwise the process waits for the thread forever.
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()

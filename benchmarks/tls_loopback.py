"""What the machine itself can do: processes that send each other bytes over TLS 1.3 on loopback.

Every process sends the same bytes to every other at once, as hospitals do at the end of a round; nothing
is checked or muxed, and stored only where a directory is given: then each file is flushed to the disk.
`python benchmarks/tls_loopback.py [DIRECTORY]` prints the seconds for four and 100 MB.
"""

import datetime as dt
import io
import multiprocessing
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final, cast

CHUNK_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 300.0


def certificate(directory: Path) -> Path:
    """A self-signed P-256 certificate with its key; worth nothing."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / "loopback.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def _send(listener: socket.socket, context: ssl.SSLContext, bytes_count: int) -> None:
    raw, _ = listener.accept()
    chunk = bytes(CHUNK_BYTES)
    with context.wrap_socket(raw, server_side=True) as stream:
        for start in range(0, bytes_count, CHUNK_BYTES):
            stream.sendall(chunk[: bytes_count - start])
        stream.recv(1)


def _receive(port: int, bytes_count: int, keep_in: Path | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as raw,
        context.wrap_socket(raw) as stream,
    ):
        with nullcontext() if keep_in is None else _new_file(keep_in) as file:
            left = bytes_count
            while left:
                taken = stream.recv_into(buffer, min(left, CHUNK_BYTES))
                left -= taken
                if file is not None:
                    file.write(buffer[:taken])
            if file is not None:
                os.fsync(file.fileno())
        stream.sendall(b".")


def _new_file(directory: Path) -> AbstractContextManager[io.FileIO]:
    return cast("io.FileIO", tempfile.TemporaryFile(dir=directory, buffering=0))


def _process(
    own: int, ports: list[int], fd: int, pem: str, count: int, keep_in: Path | None, start: Barrier
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    listener = socket.socket(fileno=fd)
    others = [port for at, port in enumerate(ports) if at != own]
    start.wait()
    threads = [threading.Thread(target=_send, args=(listener, context, count)) for _ in others]
    threads += [threading.Thread(target=_receive, args=(port, count, keep_in)) for port in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def exchange_s(members: int, bytes_count: int, keep_in: Path | None = None) -> float:
    """Seconds until each of ``members`` processes has ``bytes_count`` bytes of every other.

    keep_in: where it stores them, durably; None: nowhere.
    """
    with tempfile.TemporaryDirectory() as name:
        pem = str(certificate(Path(name)))
        listeners = []
        for _ in range(members):
            listener = socket.create_server(("127.0.0.1", 0), backlog=members)
            listeners.append(listener)
        ports = [listener.getsockname()[1] for listener in listeners]
        context = multiprocessing.get_context("fork")
        start = context.Barrier(members + 1)
        processes = [
            context.Process(
                target=_process,
                args=(at, ports, listeners[at].fileno(), pem, bytes_count, keep_in, start),
            )
            for at in range(members)
        ]
        for process in processes:
            process.start()
        start.wait()
        started_s = time.perf_counter()
        for process in processes:
            process.join()
        seconds = time.perf_counter() - started_s
        for listener in listeners:
            listener.close()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process of the comparison failed")
    return seconds


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    sys.stdout.write(f"{exchange_s(4, 100_000_000, where):.2f} s\n")

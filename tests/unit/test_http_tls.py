"""TLS: which servers the client trusts, which certificate it shows, and what a failure says."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError, FleetError
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import Answer
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import _make_tls_context
from tests.sandbox.process import Sandbox

from .support import http_get, http_post, settings_for

MESSAGES = [{"role": "user", "content": "hello", "client_message_id": "m-1", "otid": "m-1"}]


@dataclass(frozen=True)
class Certificates:
    """The files of one authority: its certificate, alone and in a directory, and those of a server and a client."""

    ca: str
    ca_directory: str
    server_cert: str
    server_key: str
    client_cert: str
    client_key: str
    client_both: str

    @classmethod
    def made_in(cls, directory: Path) -> Certificates:
        authority = trustme.CA()
        server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.com")
        files = cls(**{field.name: str(directory / field.name) for field in fields(cls)})
        authority.cert_pem.write_to_path(files.ca)
        server.cert_chain_pems[0].write_to_path(files.server_cert)
        server.private_key_pem.write_to_path(files.server_key)
        client.cert_chain_pems[0].write_to_path(files.client_cert)
        client.private_key_pem.write_to_path(files.client_key)
        client.private_key_and_cert_chain_pem.write_to_path(files.client_both)
        Path(files.ca_directory).mkdir()
        authority.cert_pem.write_to_path(str(Path(files.ca_directory, name_in_directory(authority))))
        return files

    def context(self) -> ssl.SSLContext:
        """The options with which the sandbox's own control client connects."""
        made = ssl.create_default_context(cafile=self.ca)
        made.load_cert_chain(self.client_both)
        return made


def name_in_directory(authority: trustme.CA) -> str:
    """The file name by which OpenSSL finds a certificate: `openssl x509 -hash`, and `.0`.

    That is the SHA-1 of the subject's parts, in lower case and as UTF-8, without the sequence around them.
    """
    subject = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    lower = [x509.NameAttribute(part.oid, " ".join(str(part.value).lower().split())) for part in subject]
    encoded = x509.Name(lower).public_bytes()
    header = 2 if encoded[1] < 0x80 else 2 + (encoded[1] & 0x7F)
    number = int.from_bytes(hashlib.sha1(encoded[header:]).digest()[:4], "little")
    return f"{number:08x}.0"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_process(files: Certificates) -> Iterator[Sandbox]:
    with Sandbox.start(
        devices=1, tls_cert=files.server_cert, tls_key=files.server_key, ssl_context=files.context()
    ) as sandbox:
        yield sandbox


@pytest.fixture
def server(tls_process: Sandbox) -> Sandbox:
    tls_process.reset()
    return tls_process


@pytest.fixture(scope="module")
def strict_process(files: Certificates) -> Iterator[Sandbox]:
    with Sandbox.start(
        devices=1,
        tls_cert=files.server_cert,
        tls_key=files.server_key,
        tls_client_ca=files.ca,
        ssl_context=files.context(),
    ) as sandbox:
        yield sandbox


@pytest.fixture
def strict_server(strict_process: Sandbox) -> Sandbox:
    """A server that requires a client certificate."""
    strict_process.reset()
    return strict_process


@contextmanager
def refusing_server(files: Certificates, version: ssl.TLSVersion) -> Iterator[str]:
    """A server that refuses a client without a certificate with an alert, and closes only after the client closed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server_cert, files.server_key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version

    def serve() -> None:
        connection = listener.accept()[0]
        with (
            connection.dup() as raw,
            context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as wrapped,
        ):
            with pytest.raises(ssl.SSLError):
                wrapped.do_handshake()
            while raw.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def message_to(sandbox: Sandbox, files: Certificates, *, repeatable: bool) -> int:
    """Send a message; returns the attempts."""
    connection = sandbox.fleet()[0]["row"]["connectionId"]
    body = {"agentId": "agent-1", "messages": MESSAGES}
    settings = settings_for(sandbox, ca_path=files.ca)
    reply = http_post(settings, "v1", "environments", connection, "messages", body=body, repeatable=repeatable)
    return reply.attempts


@pytest.mark.parametrize("option", ["ca", "ca_directory"])
def test_the_authority_of_a_file_or_directory_is_trusted(server: Sandbox, files: Certificates, option: str) -> None:
    reply = http_get(settings_for(server, ca_path=getattr(files, option)), "v1", "environments")

    assert len(reply.data["connections"]) == 1


def test_an_unknown_authority_is_not_trusted_and_not_asked_again(server: Sandbox) -> None:
    with pytest.raises(
        ApiError, match=r"TLS failure: .*issuer certificate.* \(see ca_path and client_cert\)"
    ) as raised:
        http_get(settings_for(server), "v1", "environments")

    assert (raised.value.code, raised.value.attempts, raised.value.may_be_accepted) == ("tls", 1, False)
    assert server.requests() == []


def test_a_ca_path_replaces_the_usual_authorities(server: Sandbox, tmp_path: Path) -> None:
    other = Certificates.made_in(tmp_path)

    with pytest.raises(ApiError, match="TLS failure"):
        http_get(settings_for(server, ca_path=other.ca), "v1", "environments")


def test_a_certificate_for_another_host_is_refused(server: Sandbox, files: Certificates) -> None:
    url = server.url.replace("127.0.0.1", "localhost")

    with pytest.raises(ApiError, match="TLS failure: Hostname mismatch") as raised:
        http_get(settings_for(server, base_url=url, ca_path=files.ca), "v1", "environments")

    assert raised.value.code == "tls"


def test_no_server_is_verified_without_validate_certs(server: Sandbox) -> None:
    url = server.url.replace("127.0.0.1", "localhost")

    assert http_get(settings_for(server, base_url=url, validate_certs=False), "v1", "environments").attempts == 1


def test_a_client_certificate_is_shown(strict_server: Sandbox, files: Certificates) -> None:
    for settings in (
        settings_for(strict_server, ca_path=files.ca, client_cert=files.client_cert, client_key=files.client_key),
        settings_for(strict_server, ca_path=files.ca, client_cert=files.client_both),
        settings_for(strict_server, validate_certs=False, client_cert=files.client_both),
    ):
        assert http_get(settings, "v1", "environments").attempts == 1


@pytest.mark.parametrize("client", [None, "stranger"])
def test_without_the_required_client_certificate_the_api_is_not_reached(
    strict_server: Sandbox, files: Certificates, tmp_path: Path, client: str | None
) -> None:
    client_cert = Certificates.made_in(tmp_path).client_both if client else None

    with pytest.raises(ApiError):
        http_get(settings_for(strict_server, ca_path=files.ca, client_cert=client_cert), "v1", "environments")

    assert strict_server.requests() == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("method", [http_get, partial(http_post, body={}, repeatable=False)])
def test_a_server_that_says_it_wants_a_client_certificate_is_a_tls_failure(
    files: Certificates, version: ssl.TLSVersion, method: Callable[..., Answer]
) -> None:
    """With TLS 1.3 the server refuses only after the client has completed the handshake."""
    with (
        refusing_server(files, version) as url,
        pytest.raises(ApiError, match=r"TLS failure: .*ALERT") as raised,
    ):
        method(settings_for(url, ca_path=files.ca), "v1")

    assert (raised.value.code, raised.value.attempts, raised.value.may_be_accepted) == ("tls", 1, False)


def test_missing_certificates_named_in_the_environment_fail_https_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Sandbox, sandbox: Sandbox, files: Certificates
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    # The data read before are kept.
    _make_tls_context.cache_clear()
    try:
        with pytest.raises(FleetError, match=r"^cannot load the certificates that SSL_CERT_FILE or SSL_CERT_DIR"):
            settings_for(server).tls_context()
        for settings in (settings_for(sandbox), settings_for(server, ca_path=files.ca)):
            assert http_get(settings, "v1", "environments").attempts == 1
    finally:
        _make_tls_context.cache_clear()


def test_http_on_a_tls_port_and_tls_on_an_http_port_are_errors(server: Sandbox, sandbox: Sandbox) -> None:
    for url in (server.url.replace("https://", "http://"), sandbox.url.replace("http://", "https://")):
        with pytest.raises(ApiError):
            http_get(settings_for(url, retries=0), "v1", "environments")


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "drop_during"])
def test_an_established_connection_that_drops_is_no_tls_failure(
    server: Sandbox, files: Certificates, fault: str, reset: bool
) -> None:
    server.add_fault(fault, reset=reset, route="messages", nth=[1, 3])

    assert message_to(server, files, repeatable=True) == 2
    assert [environment["turns"] for environment in server.received().values()] == [1]

    with pytest.raises(ApiError) as raised:
        message_to(server, files, repeatable=False)
    assert (raised.value.code, raised.value.attempts, raised.value.may_be_accepted) == ("dropped", 1, True)


def test_a_connection_that_ends_during_the_handshake_may_succeed_later() -> None:
    """As when a load balancer restarts."""
    connections = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            await reader.read(1 << 16)
        finally:
            writer.close()

    async def run() -> None:
        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
            url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            await asyncio.to_thread(http_get, settings_for(url, retries=1), "v1")

    with pytest.raises(ApiError) as raised:
        asyncio.run(run())
    assert (raised.value.transient, raised.value.may_be_accepted, connections) == (True, False, 2)

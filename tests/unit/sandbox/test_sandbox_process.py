"""The sandbox as a program: how it starts, what it prints, how it ends."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme

from tests.sandbox.process import CHECKOUT, Sandbox

COMMAND = [sys.executable, "-m", "tests.sandbox", "--devices=1"]


def start(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *options],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_line_on_standard_output_and_an_end_on_sigterm_despite_open_requests() -> None:
    process = start()
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready["pid"] == process.pid

    url = httpx.URL(ready["url"])
    headers = {"Authorization": "Bearer sandbox-key-for-loopback-only"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        client.post("/_sandbox/faults", json={"fault": "slow", "seconds": 3600})
        with pytest.raises(httpx.ReadTimeout):
            client.get("/v1/environments", timeout=httpx.Timeout(None, read=0.05))
        process.terminate()
        output, errors = process.communicate()

    assert process.returncode == -signal.SIGTERM
    assert (output, errors) == ("", "")


def test_ends_with_its_standard_input() -> None:
    process = start("--exit-with-stdin")
    assert process.stdout is not None
    process.stdout.readline()

    # Closes standard input and waits for the end.
    output, errors = process.communicate()

    assert (process.returncode, output, errors) == (0, "", "")


def test_failed_start_prints_the_reason() -> None:
    with pytest.raises(RuntimeError, match="invalid choice"), Sandbox.start(offline_status=418):
        pass


def test_https_with_client_certificates(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    cert, key, ca = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    server.cert_chain_pems[0].write_to_path(str(cert))
    server.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))

    def context(signer: trustme.CA | None) -> ssl.SSLContext:
        made = ssl.create_default_context()
        authority.configure_trust(made)
        if signer is not None:
            signer.issue_cert("client@example.com").configure_cert(made)
        return made

    with Sandbox.start(
        devices=1, tls_cert=cert, tls_key=key, tls_client_ca=ca, ssl_context=context(authority)
    ) as sandbox:
        assert sandbox.url.startswith("https://127.0.0.1:")
        assert len(sandbox.fleet()) == 1
        headers = {"Authorization": f"Bearer {sandbox.api_key}"}
        for signer in (None, stranger):
            with httpx.Client(verify=context(signer), trust_env=False) as client, pytest.raises(httpx.TransportError):
                client.get(f"{sandbox.url}/v1/environments", headers=headers)

        sandbox.add_fault("drop_before")
        with (
            httpx.Client(verify=context(authority), trust_env=False) as client,
            pytest.raises(httpx.TransportError),
        ):
            client.get(f"{sandbox.url}/v1/environments", headers=headers)
        assert [entry["status"] for entry in sandbox.requests()] == ["dropped"]

"""Connection options: what is refused before any request to a server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from ansible_collections.fleetops.environments.plugins.module_utils.errors import OptionError
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings

OPTIONS = {
    "base_url": "https://api.letta.com",
    "api_key": "sk-secret-1234567890",
    "timeout": 30,
    "retries": 5,
    "deadline": 120,
    "validate_certs": True,
}


def read(**changes: Any) -> HttpSettings:
    options = {name: value for name, value in {**OPTIONS, **changes}.items() if value is not None}
    return HttpSettings.from_options(options, api_key_help="HOW TO GIVE A KEY", allow_http_help="HOW TO ALLOW HTTP")


def refusal(**changes: Any) -> str:
    with pytest.raises(OptionError) as raised:
        read(**changes)
    text = str(raised.value)
    assert text.startswith(f"{raised.value.option}: ")
    assert "\n" not in text
    return text


def test_options_become_settings() -> None:
    settings = read(timeout=1, deadline=86400, retries=0, validate_certs=False)

    assert settings == HttpSettings(
        base_url="https://api.letta.com",
        api_key="sk-secret-1234567890",
        timeout=1.0,
        retries=0,
        deadline=86400.0,
        validate_certs=False,
    )


def test_the_key_is_no_part_of_the_settings_text() -> None:
    assert OPTIONS["api_key"] not in repr(read())


@pytest.mark.parametrize("value", [0, -1, 86401, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["timeout", "deadline"])
def test_an_invalid_time_is_refused(name: str, value: float) -> None:
    assert refusal(**{name: value}) == f"{name}: must be between 0 and 86400 seconds, got {value}"


def test_a_negative_number_of_retries_is_refused() -> None:
    assert refusal(retries=-1) == "retries: must be 0 or more, got -1"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api.letta.com", "https://api.letta.com"),
        ("https://api.letta.com/", "https://api.letta.com"),
        ("http://127.0.0.1:8283/letta//", "http://127.0.0.1:8283/letta"),
        ("http://[::1]:8283", "http://[::1]:8283"),
        ("HTTPS://api.letta.com", "HTTPS://api.letta.com"),
        ("https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example", "https://b\xfccher.example"),
    ],
)
def test_usable_urls_are_accepted(url: str, kept: str) -> None:
    assert read(base_url=url).base_url == kept


@pytest.mark.parametrize(
    "url",
    [
        "api.letta.com",
        "api.letta.com:443",
        "ftp://api.letta.com",
        "https://",
        "https:api.letta.com",
        "https:///v1",
        "https://api.letta.com:port",
        "https://api.letta.com:99999",
        "https://[::1",
        "https://api.letta.com/a b",
        " https://api.letta.com",
        "https://api.letta.com\n",
        "https://api.letta.com/\0",
        "https://api.letta.com/\u2028",
    ],
)
def test_an_unusable_url_is_refused_and_shown(url: str) -> None:
    text = refusal(base_url=url)

    assert text == f"base_url: must be an http or https URL such as https://api.example.com, got {url!r}"


@pytest.mark.parametrize("key", ["sk-secret-1234567890", "sk-let-c2VjcmV0/c2VjcmV0=="])
def test_a_key_that_is_given_for_the_url_is_not_shown(key: str) -> None:
    assert refusal(base_url=key).endswith(", got a text that may be a key")


@pytest.mark.parametrize("url", ["https://\N{SNOWMAN}", "https://xn--a", "https://" + "a" * 70_000])
def test_an_invalid_host_name_is_refused(url: str) -> None:
    assert refusal(base_url=url).startswith("base_url: ")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:sekret@api.letta.com",
        "https://sekret@api.letta.com",
        "https://:sekret@api.letta.com",
        "ftp://user:sekret@api.letta.com",
        "https://user:sekret@api.letta.com:port",
        "https://user:sekret@api.letta.com/a b",
        "https://user:sekret@",
        "//user:sekret@api.letta.com",
        "user:sekret@api.letta.com",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_shown(url: str) -> None:
    assert "sekret" not in refusal(base_url=url)


@pytest.mark.parametrize("url", ["https://api.letta.com?a=b", "https://api.letta.com/#a", "https://api.letta.com/v1?"])
def test_a_url_with_a_query_or_fragment_is_refused(url: str) -> None:
    shown = re.split("[?#]", url)[0]

    assert refusal(base_url=url) == f"base_url: must end before '?' and '#', got {shown!r} and more"


# A key in clear text

FAR = [
    "http://api.letta.com",
    "HTTP://api.letta.com",
    "http://10.0.0.1:8283",
    "http://0.0.0.0",
    "http://localhost.example.com",
    "http://127.0.0.1.example.com",
    "http://128.0.0.1",
    "http://[::2]",
    "http://[fe80::1]",
    "http://2130706433",
]
NEAR = ["http://localhost", "http://LOCALHOST:8283/letta", "http://127.0.0.1", "http://127.255.0.9:1", "http://[::1]:9"]


@pytest.mark.parametrize("url", FAR)
def test_http_to_another_machine_is_refused_unless_it_is_allowed(url: str) -> None:
    text = refusal(base_url=url, allow_http=False)

    assert text.startswith("base_url: http would send the key in clear text to ")
    assert text.endswith("; use https, or allow it with HOW TO ALLOW HTTP")
    assert refusal(base_url=url) == text
    assert read(base_url=url, allow_http=True).base_url == url


@pytest.mark.parametrize("url", NEAR)
def test_http_on_this_machine_needs_no_permission(url: str) -> None:
    assert read(base_url=url).base_url == url


def test_http_is_refused_before_a_key_file_is_read() -> None:
    assert "clear text" in refusal(base_url=FAR[0], api_key=None, api_key_file="/nowhere")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_http_on_this_machine_through_a_proxy_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://me:sekret@proxy.example.com:3128")

    text = refusal(base_url="http://127.0.0.1:8283")

    assert "in clear text to the proxy of the environment (see NO_PROXY)" in text
    assert "sekret" not in text
    assert read(base_url="http://127.0.0.1:8283", allow_http=True).proxy is not None
    assert read(base_url="https://api.letta.com").api_key == OPTIONS["api_key"]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert read(base_url="http://127.0.0.1:8283").proxy is None


def test_http_on_this_machine_through_a_proxy_of_it_needs_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://localhost:3128")

    assert read(base_url="http://127.0.0.1:8283").proxy == "http://localhost:3128"


# Keys and files


def test_no_key_says_how_to_give_one() -> None:
    assert refusal(api_key=None) == "api_key: no key was given; HOW TO GIVE A KEY"


@pytest.mark.parametrize("key", ["two words", "a-secret\nkey", "a-secret\tkey", "a-secr\xe9t-key", "a-secret\0key"])
def test_a_malformed_key_is_refused_and_not_shown(key: str) -> None:
    text = refusal(api_key=key)

    assert text.startswith("api_key: the key has characters that no key has")
    assert "secr" not in text
    assert "words" not in text


def test_a_key_file_holds_the_key_and_white_space_around_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("\n  sk-from-file \n\n")

    assert read(api_key=None, api_key_file=str(file)).api_key == "sk-from-file"


def test_a_key_overrides_a_key_file() -> None:
    assert read(api_key_file="/nowhere").api_key == OPTIONS["api_key"]


@pytest.mark.parametrize("content", [b"", b" \n\n"])
def test_an_empty_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)

    assert refusal(api_key=None, api_key_file=str(file)) == f"api_key_file: {str(file)!r} is empty"


@pytest.mark.parametrize("content", [b"sk-secret\nsk-other", b"sk secret", "sk-s\xe9cret".encode(), b"\xffsecret"])
def test_a_key_file_with_other_content_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)

    text = refusal(api_key=None, api_key_file=str(file))

    assert text.startswith("api_key_file: ")
    assert "cret" not in text


def test_a_key_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        assert refusal(api_key=None, api_key_file=str(path)).startswith(f"api_key_file: cannot read {str(path)!r}: ")


KEYS_AS_FILES = [
    "sk-secret-1234567890",
    "sk-let-c2VjcmV0c2VjcmV0c2VjcmV0/c2VjcmV0c2VjcmV0==",
    "/c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",
    "secret",
    "-----BEGIN PRIVATE KEY-----\nc2VjcmV0/c2VjcmV0\n-----END PRIVATE KEY-----\n",
    "a-secret\0key",
]


@pytest.mark.parametrize("value", KEYS_AS_FILES)
@pytest.mark.parametrize("option", ["api_key_file", "ca_path", "client_cert", "client_key"])
def test_a_key_that_is_given_for_a_file_is_not_shown(option: str, value: str) -> None:
    beside = {"api_key_file": {"api_key": None}, "client_key": {"client_cert": "/nowhere"}}.get(option, {})

    text = refusal(**{**beside, option: value})

    assert "secret" not in text
    assert "c2VjcmV0" not in text
    assert option in text
    assert "its name is hidden, as it may be a key" in text


def test_the_path_of_a_missing_file_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").mkdir()

    for path in ("/nowhere/letta.key", "./letta.key", "../letta.key", "keys/letta.key", "keys"):
        assert f"api_key_file: cannot read {path!r}: " in refusal(api_key=None, api_key_file=path)
    assert len(refusal(api_key=None, api_key_file="/nowhere/" * 1000 + "key")) < 500


def test_tls_files_are_read_before_anything_is_asked(tmp_path: Path) -> None:
    absent, empty = tmp_path / "absent.pem", tmp_path / "empty.pem"
    empty.touch()
    for path in (absent, empty):
        assert refusal(ca_path=str(path)).startswith(f"ca_path: cannot load {str(path)!r}: ")
        assert refusal(client_cert=str(path)).startswith(f"client_cert: cannot load {str(path)!r} with client_key None")
    assert refusal(client_key=str(empty)) == "client_key: needs client_cert"


def test_a_client_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, other = authority.issue_cert("a.example"), authority.issue_cert("b.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(str(cert))
    other.private_key_pem.write_to_path(str(key))

    assert "mismatch" in refusal(client_cert=str(cert), client_key=str(key)).lower()


def test_an_encrypted_client_key_is_refused_without_asking_for_its_pass_phrase(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("a.example")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(str(cert))
    key.write_bytes(
        load_pem_private_key(certificate.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass phrase")
        )
    )

    assert refusal(client_cert=str(cert), client_key=str(key)).startswith("client_key: is encrypted")


def test_without_verification_a_ca_path_is_not_read() -> None:
    assert read(validate_certs=False, ca_path="/nowhere").ca_path == "/nowhere"

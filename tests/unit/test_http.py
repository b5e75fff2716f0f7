"""One HTTP policy: which requests are repeated, what an error says, and where the key is sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import gzip
import logging
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.fleetops.environments.plugins.module_utils.errors import ApiError, FleetError
from ansible_collections.fleetops.environments.plugins.module_utils.http.client import Answer, HttpClient
from ansible_collections.fleetops.environments.plugins.module_utils.http.gate import parse_retry_after
from ansible_collections.fleetops.environments.plugins.module_utils.http.settings import HttpSettings
from tests.sandbox.process import Sandbox

from .support import KEY, NOW, http_answer, http_get, http_post, raw_server, settings_for

MESSAGES = [{"role": "user", "content": "hello", "client_message_id": "m-1", "otid": "m-1"}]
APPROVALS = [{"type": "approval", "approvals": [{"tool_call_id": "call-1", "approve": True}]}]


@pytest.fixture(scope="module")
def other_process() -> Iterator[Sandbox]:
    with Sandbox.start(devices=1) as sandbox:
        yield sandbox


@pytest.fixture
def other(other_process: Sandbox) -> Sandbox:
    other_process.reset()
    return other_process


def listing(sandbox: Sandbox, **changes: Any) -> Answer:
    return http_get(settings_for(sandbox, **changes), "v1", "environments")


def online(sandbox: Sandbox) -> dict[str, Any]:
    return next(entry["row"] for entry in sandbox.fleet() if entry["online"])


def message(sandbox: Sandbox, *, repeatable: bool = True, final: Sequence[int] = (), **changes: Any) -> Answer:
    connection = online(sandbox)["connectionId"]
    body = {"agentId": "agent-1", "messages": MESSAGES if repeatable else APPROVALS}
    settings = settings_for(sandbox, **changes)
    return http_post(
        settings, "v1", "environments", connection, "messages", body=body, repeatable=repeatable, final=final
    )


def failure(call: Any, *arguments: Any, **options: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return raised.value


def turns(sandbox: Sandbox) -> int:
    return sum(entry["turns"] for entry in sandbox.received().values())


# Repeated requests

GET_AGAIN = [
    *[("status", {"status": status, "retry_after": 0}) for status in (408, 429, 500, 502, 503, 504, 599)],
    ("status", {"status": 502, "body": "html", "retry_after": 0}),
    ("status", {"status": 503, "body": "empty", "retry_after": 0}),
    ("drop_before", {}),
    ("drop_after", {"reset": True}),
    ("drop_during", {}),
]


@pytest.mark.parametrize(("fault", "rule"), GET_AGAIN)
def test_a_get_that_may_succeed_later_is_repeated(sandbox: Sandbox, fault: str, rule: dict[str, Any]) -> None:
    sandbox.add_fault(fault, **rule, nth=1)

    reply = listing(sandbox)

    assert reply.attempts == 2
    assert len(reply.data["connections"]) == len(sandbox.fleet())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 418, 422])
def test_a_get_that_is_refused_is_not_repeated(sandbox: Sandbox, status: int) -> None:
    sandbox.add_fault("status", status=status)

    error = failure(listing, sandbox)

    assert (error.code, error.status, error.attempts) == (f"http_{status}", status, 1)
    assert (error.transient, error.may_be_accepted) == (False, False)
    assert "SANDBOX_FAULT: The sandbox was told to fail" in str(error)
    assert f"GET {sandbox.url}/v1/environments: {status} " in str(error)
    assert len(sandbox.requests()) == 1


def test_a_get_fails_with_the_last_error_after_the_retries(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", status=503, retry_after=0)

    error = failure(listing, sandbox, retries=3)

    assert (error.code, error.attempts, error.may_be_accepted) == ("http_503", 4, False)
    assert len(sandbox.requests()) == 4


def test_no_retries_is_one_request(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", status=503, retry_after=0)

    assert failure(listing, sandbox, retries=0).attempts == 1
    assert len(sandbox.requests()) == 1


@pytest.mark.parametrize(
    ("fault", "rule", "accepted"),
    [
        ("status", {"status": 429, "retry_after": 0}, False),
        ("status", {"status": 503, "retry_after": 0}, False),
    ],
)
@pytest.mark.parametrize("repeatable", [True, False])
def test_a_post_that_cannot_have_been_accepted_is_always_repeated(
    sandbox: Sandbox, fault: str, rule: dict[str, Any], accepted: bool, repeatable: bool
) -> None:
    sandbox.add_fault(fault, **rule, nth=1)

    assert message(sandbox, repeatable=repeatable).attempts == 2

    sandbox.add_fault(fault, **rule)
    error = failure(message, sandbox, repeatable=repeatable)
    assert (error.attempts, error.may_be_accepted) == (3, accepted)


UNCLEAR = [
    *[
        ("status", {"status": status, "retry_after": 0, "accepted": accepted})
        for status in (408, 500, 502, 504)
        for accepted in (True, False)
    ],
    ("drop_before", {}),
    ("drop_after", {}),
    ("drop_after", {"reset": True}),
    ("drop_during", {}),
]


@pytest.mark.parametrize(("fault", "rule"), UNCLEAR)
def test_a_post_that_may_have_been_accepted_is_repeated_under_the_same_id_for_one_turn(
    sandbox: Sandbox, fault: str, rule: dict[str, Any]
) -> None:
    sandbox.add_fault(fault, **rule, nth=1)

    assert message(sandbox).attempts == 2
    assert turns(sandbox) == 1


@pytest.mark.parametrize(("fault", "rule"), UNCLEAR)
def test_a_post_without_an_id_is_not_repeated_when_it_may_have_been_accepted(
    sandbox: Sandbox, fault: str, rule: dict[str, Any]
) -> None:
    sandbox.add_fault(fault, **rule)

    error = failure(message, sandbox, repeatable=False)

    assert (error.attempts, error.may_be_accepted) == (1, True)
    assert len(sandbox.requests("messages")) == 1


@pytest.mark.parametrize("fault", ["html_200", "not_json", "truncated_json"])
@pytest.mark.parametrize("repeatable", [True, False])
def test_a_post_answered_without_json_may_have_been_accepted(sandbox: Sandbox, fault: str, repeatable: bool) -> None:
    sandbox.add_fault(fault)

    error = failure(message, sandbox, repeatable=repeatable)

    assert (error.code, error.status, error.attempts, error.may_be_accepted) == ("not_json", 200, 1, True)


def test_an_unclear_post_stays_unclear(sandbox: Sandbox) -> None:
    sandbox.add_fault("drop_after", nth=1)
    sandbox.add_fault("status", status=400)

    error = failure(message, sandbox)

    assert (error.code, error.attempts, error.may_be_accepted) == ("http_400", 2, True)


def test_a_final_status_is_not_repeated(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", status=503, retry_after=0)

    error = failure(message, sandbox, final=(404, 503))

    assert (error.status, error.attempts) == (503, 1)


def test_a_closed_port_is_a_failure_to_connect() -> None:
    error = failure(http_get, settings_for("http://127.0.0.1:9", retries=1), "v1")

    assert (error.code, error.attempts, error.transient) == ("connect", 2, True)
    assert str(error).startswith("GET http://127.0.0.1:9/v1: cannot connect: ")

    error = failure(http_post, settings_for("http://127.0.0.1:9", retries=1), "v1", body={}, repeatable=False)

    assert (error.code, error.attempts, error.may_be_accepted) == ("connect", 2, False)


def test_a_request_times_out(sandbox: Sandbox) -> None:
    sandbox.add_fault("slow", seconds=60)

    error = failure(message, sandbox, timeout=0.1, retries=1)

    assert (error.code, error.attempts, error.may_be_accepted) == ("timeout", 2, True)
    assert "no answer within the timeout of 0.1 s" in str(error)
    assert failure(listing, sandbox, timeout=0.1, retries=0).may_be_accepted is False


def test_the_deadline_cuts_a_request_short(sandbox: Sandbox) -> None:
    sandbox.add_fault("slow", seconds=60)

    error = failure(message, sandbox, deadline=0.2)

    assert (error.code, error.attempts, error.may_be_accepted) == ("timeout", 1, True)
    assert "no answer within the deadline of 0.2 s" in str(error)


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that accepts connections and sends nothing, not even for TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(("scheme", "may_be_accepted"), [("https", False), ("http", True)])
def test_a_request_cut_short_may_be_accepted_only_if_it_was_sent(scheme: str, may_be_accepted: bool) -> None:
    with silent_server() as address:
        settings = settings_for(f"{scheme}://{address}", deadline=1)
        error = failure(http_post, settings, "v1", body={}, repeatable=False)
    # httpcore leaves the connection open when a TLS handshake is cancelled.
    gc.collect()

    assert (error.code, error.may_be_accepted) == ("timeout", may_be_accepted)
    assert "no answer within the deadline of 1 s" in str(error)


@pytest.mark.parametrize("limit", ["deadline", "timeout"])
def test_nothing_is_sent_through_a_proxy_that_does_not_connect(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    with silent_server() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
        settings = settings_for("https://api.invalid", retries=0, **{limit: 0.3})
        error = failure(http_post, settings, "v1", body={}, repeatable=False)

    assert (error.code, error.may_be_accepted) == ("timeout", False)
    assert f"within the {limit} of 0.3 s" in str(error)


def test_a_get_cut_short_by_the_deadline_cannot_have_changed_anything(sandbox: Sandbox) -> None:
    sandbox.add_fault("slow", seconds=60)

    assert failure(listing, sandbox, deadline=0.2).may_be_accepted is False


def test_no_pause_goes_past_the_deadline(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", status=503)

    error = failure(listing, sandbox, retries=1000, deadline=0.5)

    assert (error.code, error.may_be_accepted) == ("http_503", False)
    assert 1 <= error.attempts < 5


# Retry-After


def test_the_pause_is_as_long_as_the_server_asked(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", status=429, retry_after=1, nth=1)

    listing(sandbox)

    first, second = sandbox.requests()
    assert second["at"] - first["at"] >= 1


def test_a_date_in_the_past_is_no_pause(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", status=429, retry_after_date=-3600, nth=[1, 2, 3, 4])

    assert listing(sandbox, retries=4).attempts == 5


@pytest.mark.parametrize("rule", [{"retry_after": 61}, {"retry_after_date": 3600}])
def test_a_longer_pause_than_allowed_fails_at_once_and_says_how_long(sandbox: Sandbox, rule: dict[str, Any]) -> None:
    sandbox.add_fault("status", status=429, **rule)

    error = failure(listing, sandbox)

    assert error.attempts == 1
    assert error.retry_after == pytest.approx(next(iter(rule.values())), abs=60)
    assert f"(the server asked to wait {error.retry_after:.0f} s)" in str(error)


def test_a_longer_pause_than_the_deadline_fails_at_once(sandbox: Sandbox) -> None:
    sandbox.add_fault("status", status=503, retry_after=30)

    assert failure(listing, sandbox, deadline=20).attempts == 1


@pytest.mark.parametrize("value", ["soon", "-1", "0.5", "1e3", "", "\xb2", "9999-99-99", "Mon, 32 Jan 2026 99:00:00"])
def test_an_unreadable_pause_is_no_pause(sandbox: Sandbox, value: str) -> None:
    sandbox.add_fault("status", status=429, retry_after=value, nth=1)

    assert listing(sandbox).attempts == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("07", 7.0),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30.0),
        ("Sat, 31 Jan 2026 12:00:30 -0000", 30.0),
        ("Sat, 31 Jan 2026 13:00:30 +0100", 30.0),
        ("Saturday, 31-Jan-26 12:00:30 GMT", 30.0),
        ("Sat Jan 31 12:00:30 2026", 30.0),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0.0),
        ("\N{ARABIC-INDIC DIGIT SEVEN}", None),
        ("9" * 400, 365 * 86400.0),
        ("9" * 5000, 365 * 86400.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_seconds_to_wait(value: str | None, expected: float | None) -> None:
    assert parse_retry_after(value, NOW) == expected


@given(st.one_of(st.text(), st.from_regex(r"Mon, \d{1,20} Jan \d{1,5} \d\d:\d\d:\d\d [+-]\d{1,20}", fullmatch=True)))
@example("Mon, 01 Jan 2026 00:00:00 +999999999999999")
@example("Mon, 99999999999999999999 Jan 2026 00:00:00 GMT")
def test_any_text_is_seconds_to_wait_or_none(value: str) -> None:
    seconds = parse_retry_after(value, NOW)

    assert seconds is None or 0 <= seconds <= 365 * 86400


@given(st.integers(-(10**6), 10**6))
def test_a_date_is_the_seconds_until_then(seconds: int) -> None:
    assert parse_retry_after(format_datetime(NOW + timedelta(seconds=seconds)), NOW) == max(0, seconds)


# Answers


def get_answer(body: bytes = b"{}", *, status: bytes = b"200 OK", headers: tuple[bytes, ...] = ()) -> Answer:
    """The result of a GET with such an answer."""

    async def run() -> Answer:
        async with raw_server(lambda _head: http_answer(body, status=status, headers=headers)) as (url, _received):
            client = HttpClient(settings_for(url, retries=0))
            async with client:
                return await client.get("v1")

    return asyncio.run(run())


def test_the_date_of_an_answer_is_the_servers() -> None:
    assert get_answer(headers=(b"Date: Sat, 31 Jan 2026 12:00:00 GMT",)).date == NOW
    assert get_answer(headers=(b"Date: Sat, 31 Jan 2026 13:00:00 +0100",)).date == NOW


@pytest.mark.parametrize(
    "header",
    [
        b"Date: yesterday",
        b"Date:",
        b"Date: Mon, 01 Jan 2026 00:00:00 +999999999999999",
        # no time in UTC
        b"Date: Fri, 31 Dec 9999 23:59:59 -2300",
        # ahead of our clock
        b"Date: Fri, 31 Dec 9999 23:59:59 GMT",
        b"Date: Fri, 01 Jan 2100 00:00:00 GMT",
    ],
)
def test_without_a_readable_date_that_is_not_ahead_it_is_our_clock(header: bytes) -> None:
    before = datetime.now(UTC)

    assert before <= get_answer(headers=(header,)).date <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("minutes", "ours", "noted"),
    [(-60, False, True), (-2, False, True), (-0.5, False, False), (0.5, False, False), (2, True, True)],
)
def test_the_earlier_clock_counts_where_they_differ_by_more_than_a_minute(
    minutes: float, ours: bool, noted: bool
) -> None:
    theirs = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes)
    header = f"Date: {format_datetime(theirs, usegmt=True)}".encode()

    async def run() -> tuple[datetime, list[str]]:
        async with raw_server(lambda _head: http_answer(headers=(header,))) as (url, _received):
            settings = settings_for(url, retries=0)
            async with HttpClient(settings) as client:
                answers = [await client.get("v1") for _number in range(2)]
            return answers[0].date, settings.notes

    date, notes = asyncio.run(run())

    assert (date == theirs) is not ours
    assert len(notes) == noted
    assert all("clock" in note and "127.0.0.1" in note for note in notes)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", "an empty body"),
        (b" \n", "an empty body"),
        (b"<html><h1>\nWelcome</h1>", "an HTML page (<html><h1> Welcome</h1>)"),
        (b"upstream says: ok", "upstream says: ok"),
        (b'{"a": 1', '{"a": 1'),
        (b'{"a": NaN}', '{"a": NaN}'),
        (b'{"a": -Infinity}', '{"a": -Infinity}'),
        (b"[" * 100_000, "[[["),
        (b"\xff\xfe", ""),
    ],
)
def test_an_answer_other_than_json_is_an_error_that_shows_its_beginning(body: bytes, shown: str) -> None:
    error = failure(get_answer, body)

    assert (error.code, error.status, error.transient) == ("not_json", 200, False)
    assert f"answered 200 with {shown}" in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"errorCode": "E", "message": "m"}', "E: m"),
        (b'{"errorCode": "E", "error": "m"}', "E: m"),
        (b'{"message": "m\\nn"}', "m n"),
        (b'{"errorCode": 7, "message": null}', '{"errorCode": 7, "message": null}'),
        (b'["m"]', '["m"]'),
        (b"", "an empty body"),
        (b"<html>gateway", "an HTML page (<html>gateway)"),
        (b"plain", "plain"),
        (b'{"message": "' + b"x" * 5000 + b'"}', "xxx"),
    ],
)
def test_an_error_shows_the_servers_message(body: bytes, shown: str) -> None:
    error = failure(get_answer, body, status=b"400 Bad Request")

    assert f"400 Bad Request: {shown}" in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_status_of_a_whole_answer_is_a_success(status: int) -> None:
    assert get_answer(b'{"a": 1}', status=b"%d Fine" % status).data == {"a": 1}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (b"000 Nothing", "http_0"),
        (b"101 Switching Protocols", "http_101"),
        (b"203 Non-Authoritative Information", "http_203"),
        (b"205 Reset Content", "http_205"),
        (b"206 Partial Content", "http_206"),
        (b"207 Multi-Status", "http_207"),
        (b"299 Odd", "http_299"),
        (b"600 Odd", "http_600"),
        (b"999 Request denied", "http_999"),
    ],
)
def test_any_other_status_is_no_success(status: bytes, code: str) -> None:
    async def run(method: str) -> ApiError:
        async with raw_server(lambda _head: http_answer(b'{"connections": []}', status=status)) as (url, received):
            async with HttpClient(settings_for(url, timeout=5)) as client:
                with pytest.raises(ApiError) as raised:
                    await (client.get("v1") if method == "GET" else client.post("v1", body={}, repeatable=False))
            assert len(received) == 1
            return raised.value

    for method in ("GET", "POST"):
        error = asyncio.run(run(method))
        # The server may have acted on a POST, whatever it means.
        assert (error.transient, error.may_be_accepted) == (False, method == "POST")
        assert error.code == code
        assert f"/v1: {status.decode()}" in str(error)
        assert str(error).endswith("(an answer with this status is not used)")


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"403 Forbidden"])
def test_a_refused_key_names_the_option(status: bytes) -> None:
    assert "(the server refused the key given with api_key)" in str(failure(get_answer, status=status))


@pytest.mark.parametrize("charset", [b"banana", b"hex", b"idna", b"undefined", b"utf-16", b"utf-7"])
def test_the_charset_that_a_server_claims_breaks_nothing(charset: bytes) -> None:
    with contextlib.suppress(ApiError):
        get_answer(b'{"a": "b"}', headers=(b"Content-Type: application/json; charset=" + charset,))


# Where the key is sent


def test_the_key_is_sent_as_a_bearer(sandbox: Sandbox) -> None:
    async def run() -> list[bytes]:
        async with raw_server(lambda _head: http_answer()) as (url, received):
            async with HttpClient(settings_for(url)) as client:
                await client.get("v1")
            return received

    [head] = asyncio.run(run())
    assert f"\r\nAuthorization: Bearer {KEY}\r\n".encode() in head


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", ["absolute", "with_password", "scheme_relative", "same_host"])
def test_a_redirect_is_not_followed(sandbox: Sandbox, other: Sandbox, status: int, kind: str) -> None:
    host = other.url.removeprefix("http://")
    location = {
        "absolute": f"{other.url}/v1/environments?key=value",
        "with_password": f"http://user:sekret@{host}/v1/environments",
        "scheme_relative": f"//{host}/v1/environments",
        "same_host": "/v1/environments/",
    }[kind]
    sandbox.add_fault("redirect", location=location, status=status)

    for error in (failure(listing, sandbox), failure(message, sandbox)):
        assert (error.code, error.status, error.attempts, error.transient) == ("redirect", status, 1, False)
        assert "redirected to " in str(error)
        assert "set base_url" in str(error)
        assert "sekret" not in str(error)
        assert "key=value" not in str(error)
        # A server answers 303 after it has acted on a request.
        assert error.may_be_accepted == (status == 303 and error.args[0].startswith("POST"))
    assert other.requests() == []
    assert len(sandbox.requests()) == 2


def test_a_redirect_with_an_unreadable_or_no_address_is_an_error() -> None:
    for location in (b"http://[", b"http://host:port/", b"http://xn--a/", b"mailto:a@b", b"http://a/\xff", None):
        headers = (b"Location: " + location,) if location else (b"X-Nothing: here",)
        error = failure(get_answer, status=b"302 Found", headers=headers)

        assert (error.code, error.status, error.may_be_accepted) == ("redirect", 302, False)


def test_the_first_of_two_headers_counts() -> None:
    headers = (b"Retry-After: 100", b"Retry-After: 1")

    assert failure(get_answer, status=b"429 Too Many Requests", headers=headers).retry_after == 100


def test_an_answer_in_two_codings_is_not_decoded_twice() -> None:
    body = gzip.compress(gzip.compress(b"{}"))
    error = failure(get_answer, body=body, headers=(b"Content-Encoding: gzip, gzip",))

    assert error.code in ("dropped", "not_json")


def test_no_request_is_logged_where_ansible_would_write_it(caplog: pytest.LogCaptureFixture, sandbox: Sandbox) -> None:
    with caplog.at_level(logging.INFO):
        listing(sandbox)

    assert caplog.records == []


@pytest.mark.parametrize("body", ["envelope", "error_envelope", "html"])
def test_a_key_that_the_server_repeats_is_not_shown(sandbox: Sandbox, body: str) -> None:
    sandbox.add_fault("status", status=400, echo_key=True, body=body)

    error = failure(listing, sandbox)

    assert sandbox.api_key not in str(error)


@pytest.mark.parametrize(("body", "cut"), [("envelope", 300), ("error_envelope", 300), ("html", 60)])
def test_no_part_of_a_key_is_left_at_the_end_of_a_shortened_message(sandbox: Sandbox, body: str, cut: int) -> None:
    key = sandbox.api_key
    lengths = range(cut - 60 - len(key), cut) if body != "html" else range(cut)
    for length in lengths:
        sandbox.add_fault("status", status=400, echo_key=True, body=body, message="x" * length, times=1)

    errors = [str(failure(listing, sandbox)) for _length in lengths]

    # Every longer prefix of the key, and the key itself, begins with this one.
    assert [error for error in errors if key[:8] in error] == []
    assert "********" in errors[0]
    assert errors[-1].endswith(("x…", "x…)"))


def test_a_key_that_the_server_repeats_is_not_in_the_data() -> None:
    assert get_answer(b'{"a": "' + KEY.encode() + b'"}').data == {"a": "********"}


@pytest.mark.parametrize(
    "answer",
    [
        {"status": b"400 " + KEY.encode()},
        {"status": b"302 Found", "headers": (b"Location: https://login.example/" + KEY.encode(),)},
        {"status": b"400 Bad", "body": b'{"message": "' + KEY.encode().replace(b"-", b"\\u002d") + b'"}'},
    ],
)
def test_a_key_that_the_server_repeats_elsewhere_is_not_shown(answer: dict[str, Any]) -> None:
    assert KEY not in str(failure(get_answer, **answer))


def test_an_escaped_key_that_the_server_repeats_is_not_in_the_data() -> None:
    assert KEY not in str(get_answer(b'{"a": "' + KEY.encode().replace(b"-", b"\\u002d") + b'"}').data)


# Addresses


@pytest.mark.parametrize(
    ("device_id", "sent"),
    [
        ("a/b", "a%2Fb"),
        ("%2F", "%252F"),
        ("?x=1", "%3Fx%3D1"),
        ("#x", "%23x"),
        ("\xe9", "%C3%A9"),
        ("a b", "a%20b"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("...", "..."),
        ("a:b@c", "a%3Ab%40c"),
        ("\\", "%5C"),
        ("\r\nX: y", "%0D%0AX%3A%20y"),
        ("\0", "%00"),
        ("~", "~"),
    ],
)
def test_a_part_of_an_address_is_percent_encoded(sandbox: Sandbox, device_id: str, sent: str) -> None:
    sandbox.add_environment(deviceId=device_id)

    reply = http_get(settings_for(sandbox), "v1", "environments", device_id)

    assert reply.data["deviceId"] == device_id
    assert [entry["path"] for entry in sandbox.requests()] == [f"/v1/environments/{sent}"]


def test_a_too_long_address_is_an_error_that_shows_its_beginning(sandbox: Sandbox) -> None:
    error = failure(http_get, settings_for(sandbox), "v1", "environments", "d" * 70_000)

    assert (error.code, error.attempts, error.transient) == ("invalid", 1, False)
    assert str(error).startswith(f"GET {sandbox.url}/v1/environments/ddd")
    assert len(str(error)) < 700


@pytest.mark.parametrize("device_id", [".", ".."])
def test_a_part_that_leaves_the_path_is_refused_before_anything_is_sent(sandbox: Sandbox, device_id: str) -> None:
    error = failure(http_get, settings_for(sandbox), "v1", "environments", device_id)

    assert error.code == "invalid"
    assert repr(device_id) in str(error)
    assert sandbox.requests() == []


def test_a_long_body_is_sent_whole(sandbox: Sandbox) -> None:
    content = "\N{SNOWMAN}" * 1_000_000
    body = {"agentId": "agent-1", "messages": [{**MESSAGES[0], "content": content}]}
    connection = online(sandbox)["connectionId"]

    http_post(settings_for(sandbox), "v1", "environments", connection, "messages", body=body, repeatable=True)

    [received] = [entry for entry in sandbox.received().values() if entry["messages"]]
    assert received["messages"][0]["content"] == content


def test_bodies_are_kept_no_longer_than_their_request(sandbox: Sandbox) -> None:
    async def run() -> list[object]:
        async with HttpClient(settings_for(sandbox)) as client:
            await client.get("v1", "environments")
            with pytest.raises(ApiError):
                await client.post("v1", "nowhere", body={"content": "x" * 100_000}, repeatable=True)
        return [item for item in gc.get_objects() if isinstance(item, (httpx.Request, httpx.Response))]

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(run()) == []
    finally:
        gc.enable()


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object()])
def test_a_body_that_json_cannot_hold_is_refused_before_anything_is_sent(sandbox: Sandbox, value: Any) -> None:
    error = failure(http_post, settings_for(sandbox), "v1", body={"content": value}, repeatable=True)

    assert (error.code, error.attempts, error.may_be_accepted) == ("invalid", 1, False)
    assert sandbox.requests() == []


def test_parameters_are_encoded(sandbox: Sandbox) -> None:
    http_get(settings_for(sandbox), "v1", "environments", params={"userId": "a&b=c d\xe9"})

    assert sandbox.requests()[0]["query"] == {"userId": "a&b=c d\xe9"}


def test_the_path_of_the_base_url_is_kept(sandbox: Sandbox) -> None:
    failure(http_get, settings_for(sandbox, base_url=f"{sandbox.url}/letta"), "v1", "environments")

    assert [entry["path"] for entry in sandbox.requests()] == ["/letta/v1/environments"]


# Proxies


def through_proxy(monkeypatch: pytest.MonkeyPatch, base_url: str, **environment: str) -> list[bytes]:
    """The request that a proxy receives for a GET; `{proxy}` in the environment is its address."""

    async def run() -> list[bytes]:
        answer = http_answer(b'{"by": "proxy"}')
        async with raw_server(lambda _head: answer) as (url, received):
            for name, value in environment.items():
                monkeypatch.setenv(name, value.format(proxy=url, address=url.removeprefix("http://")))
            settings = settings_for(base_url, retries=0, deadline=20, allow_http=True)
            with contextlib.suppress(ApiError):
                async with HttpClient(settings) as client:
                    await client.get("v1", "environments")
            return received

    return asyncio.run(run())


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTP_PROXY": "{proxy}"},
        {"http_proxy": "{proxy}"},
        {"ALL_PROXY": "{proxy}"},
        {"HTTP_PROXY": "{address}"},
        {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "{proxy}"},
        {"HTTP_PROXY": "{proxy}", "NO_PROXY": "other.invalid"},
    ],
)
def test_the_environment_names_the_proxy_for_http(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    [head] = through_proxy(monkeypatch, "http://api.invalid", **environment)

    assert head.startswith(b"GET http://api.invalid/v1/environments HTTP/1.1\r\n")


def test_a_proxy_for_https_never_sees_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    [head] = through_proxy(monkeypatch, "https://api.invalid", HTTPS_PROXY="{proxy}")

    assert head.startswith(b"CONNECT api.invalid:443 HTTP/1.1\r\n")
    assert KEY.encode() not in head


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "*", "localhost,127.0.0.1"])
def test_no_proxy_excludes_a_host(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, no_proxy: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)

    assert listing(sandbox, retries=0).attempts == 1


def test_no_proxy_names_an_ipv6_address_without_its_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert through_proxy(monkeypatch, "http://[::1]:9", HTTP_PROXY="{proxy}", NO_PROXY="::1") == []


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "banana://127.0.0.1", "http://[", "http://127.0.0.1:port"])
def test_a_proxy_that_cannot_be_used_is_an_error_on_one_line(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)

    with pytest.raises(FleetError, match=r"^the proxy for http in the environment .* is not an http or https URL$"):
        settings_for("http://api.invalid", allow_http=True)


def test_a_proxy_that_is_not_there_is_a_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:sekret@127.0.0.1:9")

    settings = settings_for("http://api.invalid", retries=0, allow_http=True)
    error = failure(http_post, settings, "v1", body={}, repeatable=False)

    assert (error.code, error.may_be_accepted) == ("connect", False)
    assert "sekret" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_password_of_a_proxy_is_sent_there_and_not_shown(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    async def run() -> tuple[ApiError, list[bytes]]:
        refused = http_answer(status=b"407 Proxy Authentication Required")
        async with raw_server(lambda _head: refused) as (url, received):
            monkeypatch.setenv(f"{scheme.upper()}_PROXY", url.replace("://", "://user:sekret@"))
            settings = settings_for(f"{scheme}://api.invalid", retries=0, allow_http=True)
            with pytest.raises(ApiError) as raised:
                async with HttpClient(settings) as client:
                    await client.post("v1", body={}, repeatable=False)
            return raised.value, received

    error, [head] = asyncio.run(run())

    assert f"\r\nProxy-Authorization: Basic {base64.b64encode(b'user:sekret').decode()}\r\n".encode() in head
    assert "407 Proxy Authentication Required" in str(error)
    assert error.may_be_accepted is False
    assert "sekret" not in str(error)


def test_the_keys_of_netrc_are_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, sandbox: Sandbox) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    assert listing(sandbox).attempts == 1


def test_settings_of_two_clients_do_not_mix(sandbox: Sandbox) -> None:
    wrong = HttpSettings(base_url=sandbox.url, api_key="wrong-key-for-loopback", retries=0)

    assert failure(http_get, wrong, "v1", "environments").status == 401
    assert listing(sandbox).attempts == 1

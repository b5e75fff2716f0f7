"""How an inventory source of Qoder reaches the API: the access token, the URL, TLS and time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import Ansible, Certificates, Run, fill_paths

# A valid token that is part of no other text, so finding it in an output means that it leaked.
KEY = "loopback-token-that-must-not-leak"
WRONG = "wrong-token-that-must-not-leak"
NO_KEY = {"QODER_ACCESS_TOKEN": "", "QODER_PAT": ""}
# Without --export Ansible itself shows extra variables, such as a token, with each host.
VERBOSE = ("--list", "--export", "-vvvv")
QUIET_STDOUT = {"ANSIBLE_VERBOSE_TO_STDERR": "true"}


@pytest.fixture(scope="module")
def secretive_process() -> Iterator[Sandbox]:
    """A sandbox whose access token is KEY."""
    with Sandbox.start(devices=0, qoder_environments=2, qoder_key=KEY) as sandbox:
        yield sandbox


@pytest.fixture
def secretive(qoder: Ansible, secretive_process: Sandbox) -> Ansible:
    """Ansible's commands for the sandbox whose access token is KEY."""
    secretive_process.reset()
    return replace(qoder, sandbox=secretive_process)


def _list_account(run: Run, sandbox: Sandbox) -> None:
    """The environments of the account; asserts that the output at -vvvv has no token."""
    run.assert_quiet()
    hosts = json.loads(run.stdout)["_meta"]["hostvars"]
    assert {host["qoder_id"] for host in hosts.values()} == {entry["id"] for entry in sandbox.qoder.environments()}
    assert KEY not in run.output
    assert WRONG not in run.output


KEYS_IN_PLACES: dict[str, tuple[dict[str, Any], list[str], dict[str, str]]] = {
    # the case: options of the source, arguments, environment; {right} and {wrong} are files with a token
    "an option": ({"api_key": KEY}, [], NO_KEY),
    "the environment": ({}, [], {"QODER_ACCESS_TOKEN": KEY, "QODER_PAT": ""}),
    "the environment by its older name": ({}, [], {"QODER_ACCESS_TOKEN": "", "QODER_PAT": KEY}),
    "the newer name goes before the older one": ({}, [], {"QODER_ACCESS_TOKEN": KEY, "QODER_PAT": WRONG}),
    "an extra variable": ({}, ["-e", f"qoder_api_key={KEY}"], NO_KEY),
    "a file": ({"api_key_file": "{right}"}, [], NO_KEY),
    "a file in the environment": ({}, [], NO_KEY | {"QODER_API_KEY_FILE": "{right}"}),
    "a file in an extra variable": ({}, ["-e", "qoder_api_key_file={right}"], NO_KEY),
    "a template in the source": ({"api_key": "{{ lookup('ansible.builtin.file', '{right}') }}"}, [], NO_KEY),
    "the source goes before the rest": (
        {"api_key": KEY},
        ["-e", f"qoder_api_key={WRONG}"],
        {"QODER_ACCESS_TOKEN": WRONG, "QODER_PAT": WRONG},
    ),
    "an extra variable goes before the environment": (
        {},
        ["-e", f"qoder_api_key={KEY}"],
        {"QODER_ACCESS_TOKEN": WRONG, "QODER_API_KEY_FILE": "{wrong}"},
    ),
    "what is blank counts as not there": (
        {"api_key": "", "api_key_file": " "},
        ["-e", "qoder_api_key="],
        {"QODER_ACCESS_TOKEN": " ", "QODER_PAT": KEY, "QODER_API_KEY_FILE": ""},
    ),
    "the other provider's token is not it": ({"api_key": KEY}, ["-e", f"letta_api_key={WRONG}"], NO_KEY),
}


@pytest.mark.covers("qoder", "api_key", "api_key_file")
@pytest.mark.parametrize("place", KEYS_IN_PLACES)
def test_the_access_token_may_be_given_in(secretive: Ansible, place: str) -> None:
    files = {"right": secretive.file("right.key", f"{KEY}\n"), "wrong": secretive.file("wrong.key", WRONG)}
    options, arguments, env = KEYS_IN_PLACES[place]
    source = secretive.source(**{name: fill_paths(value, files) for name, value in options.items()})

    run = secretive.inventory(
        *VERBOSE,
        *(fill_paths(argument, files) for argument in arguments),
        source=source,
        env=QUIET_STDOUT | {name: fill_paths(value, files) for name, value in env.items()},
    )

    _list_account(run, secretive.sandbox)


@pytest.mark.covers("qoder", "api_key")
def test_the_token_may_be_a_vaulted_value_or_the_whole_source_a_vaulted_file(secretive: Ansible) -> None:
    plugin = "plugin: fleetops.environments.qoder\n"
    source = secretive.file("fleet.yml", plugin + secretive.vault("encrypt_string", "--name", "api_key", KEY))
    opened = [*VERBOSE, *secretive.opened]
    env = NO_KEY | QUIET_STDOUT
    value = secretive.inventory(*opened, source=source, env=env)
    locked = secretive.inventory(*VERBOSE, source=source, env=env)
    source.write_text(f"{plugin}api_key: {KEY}\n")
    secretive.vault("encrypt", str(source))
    whole = secretive.inventory(*opened, source=source, env=env)

    _list_account(value, secretive.sandbox)
    _list_account(whole, secretive.sandbox)
    locked.assert_inventory_error("vault")


BROKEN: dict[str, dict[str, Any]] = {
    "a wrong value beside it": {"api_key": KEY, "trust": "everyone"},
    "a wrong time beside it": {"api_key": KEY, "created_at_gte": "yesterday"},
    "an unknown option beside it": {"api_key": KEY, "api_keys": "x"},
    "a list": {"api_key": [KEY]},
    "white space in it": {"api_key": f"{KEY} {KEY}"},
    "a template that fails": {"api_key": f"{{{{ nothing }}}}{KEY}"},
    "the URL as its user": {"base_url": f"http://{KEY}@127.0.0.1:99999"},
    "the URL as a query": {"base_url": f"http://127.0.0.1/?access_token={KEY}"},
}


def test_no_mistake_shows_the_token(secretive: Ansible, subtests: pytest.Subtests) -> None:
    run = secretive.sources(BROKEN.values(), "-vvvv", env=QUIET_STDOUT | {"QODER_ACCESS_TOKEN": KEY})

    errors = run.inventory_errors()
    mistakes = ("trust", "created_at_gte", "api_keys", "base_url", "api_key")
    for number, (mistake, options) in enumerate(BROKEN.items()):
        with subtests.test(mistake):
            said = errors[f"{number}.yml"]
            message = said.partition("\n\n")[0]
            assert "\n" not in message
            assert next(name for name in mistakes if name in options) in message
    assert KEY not in run.output
    assert "Traceback" not in run.output
    assert secretive.sandbox.requests() == []


def test_a_token_that_the_server_repeats_is_shown_nowhere(secretive: Ansible) -> None:
    environment = secretive.sandbox.qoder.add_environment(name="parrot", description=f"x {KEY} y")
    shown = secretive.inventory(*VERBOSE, env=QUIET_STDOUT)
    secretive.sandbox.add_fault("status", route="qoder_list", status=400, echo_key=True)
    failed = secretive.inventory(*VERBOSE, env=QUIET_STDOUT)

    _list_account(shown, secretive.sandbox)
    assert environment["id"] in shown.stdout
    failed.assert_inventory_error("400 Bad Request: invalid_request_error: The sandbox was told to fail")
    assert KEY not in failed.output


@pytest.mark.covers("qoder", "api_key")
def test_no_token_names_the_option_and_the_variables(qoder: Ansible) -> None:
    run = qoder.inventory("--list", source=qoder.source(api_key="", api_key_file=""), env=NO_KEY)

    run.assert_inventory_error(
        "api_key", "api_key_file", "qoder_api_key", "QODER_ACCESS_TOKEN or QODER_PAT", "no key was given"
    )
    assert "LETTA" not in run.output
    assert qoder.sandbox.requests() == []


@pytest.mark.parametrize(("forbidden", "said"), [(False, "401 Unauthorized"), (True, "403 Forbidden")])
def test_a_refused_token_is_an_error_with_the_message_of_the_server(qoder: Ansible, forbidden: bool, said: str) -> None:
    if forbidden:
        qoder.sandbox.qoder.account("guest", WRONG, forbidden=True)

    run = qoder.inventory(*VERBOSE, env=QUIET_STDOUT | {"QODER_ACCESS_TOKEN": WRONG})

    run.assert_inventory_error(f"GET {qoder.sandbox.qoder.url}/environments: {said}", "api_key", "request_id")
    assert WRONG not in run.output
    assert len(qoder.sandbox.requests()) == 1


@pytest.mark.covers("qoder", "base_url", "retries")
def test_the_url_comes_from_the_source_then_an_extra_variable_then_the_environment(qoder: Ansible) -> None:
    url, nowhere = qoder.sandbox.qoder.url, "http://nowhere.invalid"
    # A missing proxy keeps the request on this machine, whatever network it has.
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "", "NO_PROXY": "", "no_proxy": ""}

    extra = qoder.inventory("--list", "-e", f"qoder_base_url={url}/", env={"QODER_MANAGED_BASE_URL": nowhere})
    source = qoder.inventory(
        "--list", "-e", f"qoder_base_url={nowhere}", source=qoder.source(base_url=url), env={"LETTA_BASE_URL": nowhere}
    )
    usual = qoder.inventory(
        "--list", source=qoder.source(base_url="", retries=0), env={"QODER_MANAGED_BASE_URL": "", **closed}
    )

    for run in (extra, source):
        run.assert_quiet()
        hosts = json.loads(run.stdout)["_meta"]["hostvars"]
        assert {host["fleetops_environment"]["base_url"] for host in hosts.values()} == {url}
    usual.assert_inventory_error("GET https://api.qoder.com/api/v1/cloud/environments: cannot connect")


@pytest.mark.covers("qoder", "retries", "timeout", "deadline")
def test_the_options_decide_when_requests_are_repeated_and_abandoned(qoder: Ansible) -> None:
    sandbox = qoder.sandbox
    sandbox.add_fault("status", route="qoder_list", status=503, body="empty")

    def count_requests(run: Run, *parts: str) -> int:
        run.assert_inventory_error(f"GET {sandbox.qoder.url}/environments", *parts)
        count = len(sandbox.requests())
        sandbox.clear_requests()
        return count

    start = time.monotonic()
    never = count_requests(qoder.inventory("--list", source=qoder.source(retries=0), env={"QODER_RETRIES": "9"}), "503")
    once = count_requests(qoder.inventory("--list", env={"QODER_RETRIES": "1"}), "503", "an empty body")
    twice = count_requests(qoder.inventory("--list", "-e", "qoder_retries=2"), "503")
    sandbox.clear_faults()
    sandbox.add_fault("slow", route="qoder_list", seconds=60)
    slow = count_requests(qoder.inventory("--list", source=qoder.source(timeout=0.3, retries=1)), "timeout of 0.3 s")
    late = qoder.inventory("--list", source=qoder.source(timeout=0.4, retries=50, deadline=1))

    assert (never, once, twice, slow) == (1, 2, 3, 2)
    assert 2 <= count_requests(late, "1 s") <= 4
    assert time.monotonic() - start < 40


@pytest.mark.covers("qoder", "ca_path", "validate_certs", "client_cert", "client_key")
def test_the_tls_options_are_used(qoder: Ansible, certificates: Certificates) -> None:
    authority, cert, key = (
        str(path) for path in (certificates.authority, certificates.client_cert, certificates.client_key)
    )
    other = str(certificates.authority.with_name("other.pem"))
    options: dict[str, Any] = {**certificates.server, "tls_client_ca": certificates.authority}
    with Sandbox.start(devices=0, qoder_environments=2, ssl_context=certificates.context, **options) as sandbox:
        tls = replace(qoder, sandbox=sandbox)
        shown = {"client_cert": cert, "client_key": key, "retries": 0}
        names = tls.hosts(**shown, ca_path=authority).keys()
        unverified = tls.hosts(**shown, validate_certs=False).keys()
        environment = {"CA_PATH": authority, "CLIENT_CERT": cert, "CLIENT_KEY": key, "VALIDATE_CERTS": ""}
        from_environment = tls.hosts(env={f"QODER_{name}": value for name, value in environment.items()}).keys()
        distrusted = tls.inventory("--list", source=tls.source(**shown, ca_path=other))
        anonymous = tls.inventory("--list", source=tls.source(ca_path=authority, retries=0))
        keyless = tls.inventory("--list", source=tls.source(ca_path=authority, client_cert=cert, retries=0))

    assert len(names) == 2
    assert names == unverified == from_environment
    distrusted.assert_inventory_error(f"{sandbox.qoder.url}/environments", "TLS failure", "ca_path")
    anonymous.assert_inventory_error(f"{sandbox.qoder.url}/environments")
    keyless.assert_inventory_error("client_cert", cert)


def test_a_blank_option_or_variable_counts_as_unset(qoder: Ansible) -> None:
    names = (
        "ACCESS_TOKEN", "API_KEY_FILE", "TIMEOUT", "RETRIES", "DEADLINE", "VALIDATE_CERTS", "CA_PATH", "CLIENT_CERT",
        "CLIENT_KEY",
    )  # fmt: skip
    blank = dict.fromkeys(
        ["timeout", "retries", "deadline", "validate_certs", "ca_path", "client_cert", "client_key", "api_key_file",
         "api_key", "base_url", "limit", "after_id", "before_id", "include_archived", "created_at_gte",
         "created_at_lte", "filters", "hostnames", "on_duplicate", "hostvars_prefix", "group_by", "group_prefix",
         "root_group", "trust", "on_invalid", "fail_on_empty", "compose", "groups", "keyed_groups", "strict", "cache",
         "cache_timeout"],
        "",
    )  # fmt: skip
    extra = [f"-eqoder_{name}=" for name in ("api_key", "base_url", "timeout", "validate_certs", "ca_path")]
    env = {f"QODER_{name}": "" for name in names} | {"QODER_PAT": qoder.sandbox.qoder.key}

    ordinary = qoder.listing()
    run = qoder.inventory("--list", *extra, source=qoder.source(**blank), env=env)

    run.assert_quiet()
    shown = json.loads(run.stdout)
    assert shown.keys() == ordinary.keys()
    assert shown["_meta"]["hostvars"].keys() == ordinary["_meta"]["hostvars"].keys()
    assert [request["query"] for request in qoder.sandbox.requests()] == [{"limit": "100"}] * 2

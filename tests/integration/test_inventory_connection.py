"""How an inventory source reaches the API: the key, the places of each connection option, TLS and time limits."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.process import Sandbox

from .conftest import Ansible, Certificates, Run, fill_paths

# A valid key that is part of no other text, so finding it in an output means that it leaked.
KEY = "loopback-key-that-must-not-leak"
WRONG = "wrong-key-that-must-not-leak"
NO_KEY = {"LETTA_API_KEY": ""}
# As AWX lists. Without --export Ansible itself shows extra variables, such as a key, with each host.
VERBOSE = ("--list", "--export", "-vvvv")
QUIET_STDOUT = {"ANSIBLE_VERBOSE_TO_STDERR": "true"}


@pytest.fixture(scope="module")
def secretive_process() -> Iterator[Sandbox]:
    """A sandbox whose key is KEY."""
    with Sandbox.start(devices=2, api_key=KEY) as sandbox:
        yield sandbox


@pytest.fixture
def secretive(ansible: Ansible, secretive_process: Sandbox) -> Ansible:
    """Ansible's commands for the sandbox whose key is KEY, without the key in the environment."""
    secretive_process.reset()
    return Ansible(ansible.directory, secretive_process)


def _list_fleet(run: Run, sandbox: Sandbox) -> None:
    """The fleet; asserts that the output at -vvvv has no key."""
    run.assert_quiet()
    shown = json.loads(run.stdout)
    assert shown["_meta"]["hostvars"].keys() == {entry["name"] for entry in sandbox.fleet()}
    _no_key(run)


def _no_key(run: Run) -> None:
    assert KEY not in run.output
    assert WRONG not in run.output


KEYS_IN_PLACES: dict[str, tuple[dict[str, Any], list[str], dict[str, str]]] = {
    # the case: options of the source, arguments, environment; {right} and {wrong} are files with a key
    "an option": ({"api_key": KEY}, [], NO_KEY),
    "an environment variable": ({}, [], {"LETTA_API_KEY": KEY}),
    "an extra variable": ({}, ["-e", f"letta_api_key={KEY}"], NO_KEY),
    "a file": ({"api_key_file": "{right}"}, [], NO_KEY),
    "a file in the environment": ({}, [], NO_KEY | {"LETTA_API_KEY_FILE": "{right}"}),
    "a file in an extra variable": ({}, ["-e", "letta_api_key_file={right}"], NO_KEY),
    "a template in the source": ({"api_key": "{{ lookup('ansible.builtin.file', '{right}') }}"}, [], NO_KEY),
    "a template of an extra variable": (
        {"api_key": "{{ vaulted | trim }}"},
        ["-e", f"vaulted=' {KEY} '"],
        NO_KEY,
    ),
    "a template in an extra variable": (
        {},
        ["-e", "letta_api_key={{ lookup('ansible.builtin.env', 'FLEET_KEY') }}"],
        NO_KEY | {"FLEET_KEY": KEY},
    ),
    "the source goes before the rest": (
        {"api_key": KEY, "api_key_file": "{wrong}"},
        ["-e", f"letta_api_key={WRONG}"],
        {"LETTA_API_KEY": WRONG},
    ),
    "a file in the source goes before other keys": (
        {"api_key_file": "{right}"},
        ["-e", f"letta_api_key={WRONG}"],
        {"LETTA_API_KEY": WRONG},
    ),
    "an extra variable goes before the environment": (
        {},
        ["-e", f"letta_api_key={KEY}"],
        {"LETTA_API_KEY": WRONG, "LETTA_API_KEY_FILE": "{wrong}"},
    ),
    "a file in an extra variable goes before the environment": (
        {},
        ["-e", "letta_api_key_file={right}"],
        {"LETTA_API_KEY": WRONG},
    ),
    "what is blank counts as not there": (
        {"api_key": "", "api_key_file": " "},
        ["-e", "letta_api_key="],
        {"LETTA_API_KEY": KEY, "LETTA_API_KEY_FILE": ""},
    ),
}


@pytest.mark.covers("letta", "api_key", "api_key_file")
@pytest.mark.parametrize("place", KEYS_IN_PLACES)
def test_the_key_may_be_given_in(secretive: Ansible, place: str) -> None:
    files = {"right": secretive.file("right.key", f"{KEY}\n"), "wrong": secretive.file("wrong.key", WRONG)}
    options, arguments, env = KEYS_IN_PLACES[place]
    source = secretive.source(**{name: fill_paths(value, files) for name, value in options.items()})

    run = secretive.inventory(
        *VERBOSE,
        *(fill_paths(argument, files) for argument in arguments),
        source=source,
        env=QUIET_STDOUT | {name: fill_paths(value, files) for name, value in env.items()},
    )

    _list_fleet(run, secretive.sandbox)


@pytest.mark.covers("letta", "api_key")
def test_the_key_may_be_a_vaulted_value_or_the_whole_source_a_vaulted_file(secretive: Ansible) -> None:
    plugin = "plugin: fleetops.environments.letta\n"
    source = secretive.file("fleet.yml", plugin + secretive.vault("encrypt_string", "--name", "api_key", KEY))
    opened = [*VERBOSE, *secretive.opened]
    env = NO_KEY | QUIET_STDOUT
    value = secretive.inventory(*opened, source=source, env=env)
    locked = secretive.inventory(*VERBOSE, source=source, env=env)
    source.write_text(f"{plugin}api_key: {KEY}\n")
    secretive.vault("encrypt", str(source))
    whole = secretive.inventory(*opened, source=source, env=env)

    _list_fleet(value, secretive.sandbox)
    _list_fleet(whole, secretive.sandbox)
    locked.assert_inventory_error("vault")


BROKEN: dict[str, dict[str, Any]] = {
    "a wrong value beside it": {"api_key": KEY, "trust": "everyone"},
    "a wrong number beside it": {"api_key": KEY, "page_size": "many"},
    "an unknown option beside it": {"api_key": KEY, "api_keys": "x"},
    "a bad expression beside it": {"api_key": KEY, "filters": ["mode =="]},
    "a list": {"api_key": [KEY]},
    "a dictionary": {"api_key": {"value": KEY}},
    "white space in it": {"api_key": f"{KEY} {KEY}"},
    "a template that fails": {"api_key": f"{{{{ nothing }}}}{KEY}"},
    "a template that is none": {"api_key": f"{{{{ '{KEY}' | nothing }}}}"},
    "the URL as its user": {"base_url": f"http://{KEY}@127.0.0.1:99999"},
    "the URL as a password": {"base_url": f"http://me:{KEY}@127.0.0.1"},
    "the URL as a query": {"base_url": f"http://127.0.0.1/?api_key={KEY}"},
}


def test_no_mistake_shows_the_key(secretive: Ansible, subtests: pytest.Subtests) -> None:
    run = secretive.sources(BROKEN.values(), "-vvvv", env=QUIET_STDOUT | {"LETTA_API_KEY": KEY})

    errors = run.inventory_errors()
    mistakes = ("trust", "page_size", "api_keys", "filters", "base_url", "api_key")
    for number, (mistake, options) in enumerate(BROKEN.items()):
        with subtests.test(mistake):
            said = errors[f"{number}.yml"]
            assert KEY not in said
            message = said.partition("\n\n")[0]
            assert "\n" not in message
            assert next(name for name in mistakes if name in options) in message
    assert "Traceback" not in run.output


@pytest.mark.covers("letta", "api_key")
def test_no_key_names_the_option_and_the_variables(ansible: Ansible) -> None:
    source = ansible.source(api_key="", api_key_file="")

    run = ansible.inventory("--list", source=source, env={"LETTA_API_KEY": " "})

    run.assert_inventory_error("api_key", "api_key_file", "letta_api_key", "LETTA_API_KEY")
    assert ansible.sandbox.requests() == []


@pytest.mark.covers("letta", "api_key_file")
def test_a_key_file_that_cannot_be_read_or_is_empty_names_the_option_and_the_file(ansible: Ansible) -> None:
    empty = ansible.directory / "empty.key"
    empty.write_text("\n")

    missing = ansible.inventory("--list", source=ansible.source(api_key_file="/nowhere/letta.key"))
    nothing = ansible.inventory("--list", source=ansible.source(api_key_file=str(empty)))

    missing.assert_inventory_error("api_key_file", "/nowhere/letta.key", "No such file")
    nothing.assert_inventory_error("api_key_file", "empty.key")


@pytest.mark.parametrize(("key", "status"), [(WRONG, "401"), ("forbidden-key-for-loopback-only", "403")])
def test_a_refused_key_is_an_error_with_the_status_and_the_message_of_the_server(
    ansible: Ansible, key: str, status: str
) -> None:
    run = ansible.inventory(*VERBOSE, env=QUIET_STDOUT | {"LETTA_API_KEY": key})

    run.assert_inventory_error(f"{ansible.sandbox.url}/v1/environments", status, "key", "api_key")
    assert key not in run.output
    assert len(ansible.sandbox.requests()) == 1


def test_a_key_that_the_server_repeats_is_shown_nowhere(secretive: Ansible) -> None:
    secretive.sandbox.add_fault("status", route="list", status=400, echo_key=True)

    run = secretive.inventory(*VERBOSE, source=secretive.source(api_key=KEY), env=QUIET_STDOUT)

    _no_key(run)
    run.assert_inventory_error("400", "The sandbox was told to fail")


@pytest.mark.covers("letta", "base_url")
def test_the_url_comes_from_the_source_then_an_extra_variable_then_the_environment(
    ansible: Ansible, other_sandbox: Sandbox
) -> None:
    nowhere = "http://nowhere.invalid"
    names = {entry["name"] for entry in other_sandbox.fleet()}

    extra = ansible.inventory("--list", "-e", f"letta_base_url={other_sandbox.url}/", env={"LETTA_BASE_URL": nowhere})
    source = ansible.inventory(
        "--list", "-e", f"letta_base_url={nowhere}", source=ansible.source(base_url=other_sandbox.url)
    )

    for run in (extra, source):
        run.assert_quiet()
        hosts = json.loads(run.stdout)["_meta"]["hostvars"]
        assert hosts.keys() == names
        assert {host["fleetops_environment"]["base_url"] for host in hosts.values()} == {other_sandbox.url}
    assert ansible.sandbox.requests() == []


@pytest.mark.covers("letta", "base_url")
def test_a_blank_url_selects_the_official_api(ansible: Ansible) -> None:
    # A missing proxy keeps the request on this machine, whatever network it has.
    env = {"LETTA_BASE_URL": "", "HTTPS_PROXY": f"http://127.0.0.1:{_closed_port()}", "https_proxy": "", "NO_PROXY": ""}

    run = ansible.inventory("--list", source=ansible.source(base_url="", retries=0), env=env)

    run.assert_inventory_error("https://api.letta.com/v1/environments", "cannot connect")


@pytest.mark.covers("letta", "base_url", "retries")
@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_a_host_that_cannot_be_reached_is_named_with_the_cause(ansible: Ansible, host: str) -> None:
    url = f"http://{host}:{_closed_port()}"

    run = ansible.inventory("--list", source=ansible.source(base_url=url, retries=1, allow_http=True))

    run.assert_inventory_error(f"GET {url}/v1/environments", "cannot connect")
    assert ansible.sandbox.api_key not in run.output


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.covers("letta", "retries")
def test_a_request_is_repeated_as_often_as_retries_says(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("status", route="list", status=503)

    never = ansible.inventory("--list", source=ansible.source(retries=0), env={"LETTA_RETRIES": "9"})
    counts = [len(ansible.sandbox.requests("list"))]
    twice = ansible.inventory("--list", "-e", "letta_retries=2", env={"LETTA_RETRIES": "9"})
    counts.append(len(ansible.sandbox.requests("list")))
    once = ansible.inventory("--list", env={"LETTA_RETRIES": "1"})
    counts.append(len(ansible.sandbox.requests("list")))

    for run in (never, twice, once):
        run.assert_inventory_error(f"{ansible.sandbox.url}/v1/environments", "503", "The sandbox was told to fail")
    assert counts == [1, 4, 6]


@pytest.mark.covers("letta", "timeout", "deadline")
def test_a_slow_answer_is_abandoned_after_the_timeout_and_the_listing_after_the_deadline(ansible: Ansible) -> None:
    ansible.sandbox.add_fault("slow", route="list", seconds=20)

    start = time.monotonic()
    one = ansible.inventory("--list", source=ansible.source(retries=1), env={"LETTA_TIMEOUT": "0.3"})
    asked = len(ansible.sandbox.requests("list"))
    whole = ansible.inventory("--list", source=ansible.source(timeout=0.4, retries=50), env={"LETTA_DEADLINE": "1"})
    took = time.monotonic() - start

    one.assert_inventory_error(f"{ansible.sandbox.url}/v1/environments", "timeout of 0.3 s")
    assert asked == 2
    whole.assert_inventory_error(f"{ansible.sandbox.url}/v1/environments", "1 s")
    assert 2 <= len(ansible.sandbox.requests("list")) - asked <= 4
    assert took < 30


def test_a_blank_option_or_variable_counts_as_unset(ansible: Ansible) -> None:
    names = ("TIMEOUT", "RETRIES", "DEADLINE", "VALIDATE_CERTS", "CA_PATH", "CLIENT_CERT", "CLIENT_KEY", "API_KEY_FILE")
    blank = dict.fromkeys(
        ["timeout", "retries", "deadline", "validate_certs", "ca_path", "client_cert", "client_key", "api_key_file",
         "api_key", "base_url", "source", "user_id", "page_size", "filters", "hostnames", "hostname_prefix",
         "on_duplicate", "hostvars_prefix", "group_by", "group_prefix", "root_group", "trust", "on_invalid",
         "fail_on_empty", "online_only", "compose", "groups", "keyed_groups", "strict", "cache", "cache_timeout"],
        "",
    )  # fmt: skip
    extra = [f"-eletta_{name}=" for name in ("api_key", "base_url", "timeout", "validate_certs", "ca_path")]

    plain = ansible.listing()
    run = ansible.inventory(
        "--list", *extra, source=ansible.source(**blank), env={f"LETTA_{name}": "" for name in names}
    )

    run.assert_quiet()
    shown = json.loads(run.stdout)
    assert shown.keys() == plain.keys()
    assert shown["_meta"]["hostvars"].keys() == plain["_meta"]["hostvars"].keys()


@pytest.fixture(scope="module")
def tls_process(certificates: Certificates) -> Iterator[Sandbox]:
    with Sandbox.start(devices=2, ssl_context=certificates.context, **certificates.server) as sandbox:
        yield sandbox


@pytest.fixture
def tls(ansible: Ansible, tls_process: Sandbox) -> Ansible:
    """Ansible's commands for a sandbox with TLS."""
    tls_process.reset()
    return Ansible(ansible.directory, tls_process)


@pytest.mark.covers("letta", "ca_path", "validate_certs")
def test_an_unknown_authority_fails_the_listing_until_it_is_given(tls: Ansible, certificates: Certificates) -> None:
    unknown = tls.inventory("--list", env={"LETTA_VALIDATE_CERTS": ""})
    blank = tls.inventory("--list", source=tls.source(validate_certs="", ca_path=""))
    another = tls.inventory("--list", source=tls.source(ca_path=str(certificates.authority.with_name("other.pem"))))
    assert tls.sandbox.requests() == []

    for run in (unknown, blank, another):
        run.assert_inventory_error(f"{tls.sandbox.url}/v1/environments", "TLS", "certificate", "ca_path")
    names = {entry["name"] for entry in tls.sandbox.fleet()}
    assert tls.hosts(ca_path=str(certificates.authority)).keys() == names
    assert tls.hosts(env={"LETTA_CA_PATH": str(certificates.authority)}).keys() == names
    assert tls.hosts(validate_certs=False).keys() == names
    assert tls.hosts(env={"LETTA_VALIDATE_CERTS": "false"}).keys() == names


def test_missing_certificates_named_in_the_environment_are_one_line_and_needed_by_https_alone(
    ansible: Ansible, tls: Ansible, certificates: Certificates
) -> None:
    env = {"SSL_CERT_FILE": "/nonexistent/ca.pem"}

    unread = tls.inventory("--list", env=env)
    given = tls.listing(env=env, ca_path=str(certificates.authority))
    plain = ansible.listing(env=env)

    unread.assert_inventory_error("cannot load the certificates that SSL_CERT_FILE or SSL_CERT_DIR names")
    assert len(given["_meta"]["hostvars"]) == len(tls.sandbox.fleet())
    assert len(plain["_meta"]["hostvars"]) == len(ansible.sandbox.fleet())


@pytest.mark.covers("letta", "client_cert", "client_key")
def test_a_server_that_requires_a_client_certificate_gets_it(ansible: Ansible, certificates: Certificates) -> None:
    options: dict[str, Any] = {**certificates.server, "tls_client_ca": certificates.authority}
    given = {"ca_path": str(certificates.authority), "client_cert": str(certificates.client_cert)}
    both = certificates.client_cert.with_name("both.pem")
    both.write_bytes(certificates.client_cert.read_bytes() + certificates.client_key.read_bytes())
    with Sandbox.start(devices=2, ssl_context=certificates.context, **options) as sandbox:
        strict = Ansible(ansible.directory, sandbox)
        names = {entry["name"] for entry in sandbox.fleet()}

        with_both = strict.hosts(**given, client_key=str(certificates.client_key))
        in_one_file = strict.hosts(**given | {"client_cert": str(both)})
        without = strict.inventory("--list", source=strict.source(ca_path=given["ca_path"], retries=0))

    assert with_both.keys() == names
    assert in_one_file.keys() == names
    without.assert_inventory_error(f"{sandbox.url}/v1/environments")


@pytest.mark.covers("letta", "ca_path", "client_cert", "client_key")
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"ca_path": "/nowhere/ca.pem"}, ["ca_path", "/nowhere/ca.pem"]),
        ({"client_cert": "/nowhere/client.pem"}, ["client_cert", "/nowhere/client.pem"]),
        ({"client_key": "/nowhere/client.key"}, ["client_key", "client_cert"]),
    ],
)
def test_a_tls_file_that_cannot_be_used_names_the_option(
    ansible: Ansible, options: dict[str, str], parts: list[str]
) -> None:
    ansible.inventory("--list", source=ansible.source(**options)).assert_inventory_error(*parts)


@pytest.mark.parametrize("where", ["elsewhere", "here"])
def test_a_redirect_is_not_followed_and_the_key_is_sent_nowhere(
    ansible: Ansible, other_sandbox: Sandbox, where: str
) -> None:
    target = other_sandbox.url if where == "elsewhere" else ansible.sandbox.url
    ansible.sandbox.add_fault("redirect", route="list", location=f"{target}/v1/environments", nth=1)

    run = ansible.inventory("--list")

    run.assert_inventory_error(f"{ansible.sandbox.url}/v1/environments", "redirect", target)
    assert other_sandbox.requests() == []
    assert len(ansible.sandbox.requests()) == 1


@pytest.mark.parametrize("package", ["httpx", "pydantic", "jmespath"])
def test_a_missing_package_is_named_with_the_python_that_needs_it(ansible: Ansible, package: str) -> None:
    folder = ansible.directory / "site"
    folder.mkdir()
    # Python imports this before anything else; None marks a module that must not be imported.
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")

    run = ansible.inventory("--list", env={"PYTHONPATH": str(folder)})

    run.assert_inventory_error(package, str(Path(sys.executable).parent.resolve()))
    assert ansible.sandbox.requests() == []


def test_all_missing_packages_are_named_at_once_and_the_documentation_is_still_readable(ansible: Ansible) -> None:
    folder = ansible.directory / "site"
    folder.mkdir()
    packages = ["httpx", "pydantic", "jmespath", "semantic_version"]
    (folder / "sitecustomize.py").write_text(f"import sys\nfor name in {packages!r}:\n    sys.modules[name] = None\n")

    run = ansible.inventory("--list", env={"PYTHONPATH": str(folder)})

    run.assert_inventory_error(*packages)

    document = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "-t", "inventory", "fleetops.environments.letta"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert "on_duplicate" in document.stdout

# Copyright (c) 2026, the fleetops.environments authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection options of a provider, validated, with their TLS context and proxy."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._deps import httpx
from ..errors import ApiError, FleetError, OptionError
from ..text import one_line
from .gate import Gate


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The connection options of a provider, validated.

    timeout: seconds for connecting and for each read and write of one request.
    deadline: seconds for one call with all its retries.
    relay_timeout: seconds for a device's first answer over a relay.
    proxy: the URL that the environment names, None for no proxy.
    gate: holds back all requests with these settings while the server wants no request.
    notes: what the user should know of the answers, each as a line.
    """

    base_url: str
    api_key: str = field(repr=False)
    timeout: float = 30.0
    retries: int = 5
    deadline: float = 120.0
    relay_timeout: float = 10.0
    validate_certs: bool = True
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = field(default=None, repr=False)
    gate: Gate = field(default_factory=Gate, init=False, repr=False, compare=False)
    notes: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], *, api_key_help: str, allow_http_help: str = "allow_http"
    ) -> HttpSettings:
        """Options as a plugin read them, blanks already removed.

        api_key_help: how the user gives a key, for the error when there is none. allow_http_help: the same of
            `allow_http`, for the error of a key that would travel in clear text.
        Raises OptionError, and FleetError for a proxy that cannot be used.
        """
        for name in ("timeout", "deadline", "relay_timeout"):
            if name in options and not 0 < options[name] <= 86400:
                raise OptionError(name, f"must be between 0 and 86400 seconds, got {options[name]}")
        if options["retries"] < 0:
            raise OptionError("retries", f"must be 0 or more, got {options['retries']}")
        if options.get("client_key") and not options.get("client_cert"):
            raise OptionError("client_key", "needs client_cert")
        base_url = _check_base_url(options["base_url"])
        proxy = _find_proxy(base_url)
        if not options.get("allow_http"):
            _refuse_clear_text(base_url, proxy, allow_http_help)
        api_key = _read_key(options, api_key_help)
        given = {name: value for name, value in options.items() if name not in ("allow_http", "api_key_file")}
        settings = cls(**{**given, "base_url": base_url, "api_key": api_key, "proxy": proxy})
        settings.tls_context()
        return settings

    def url(self, *segments: str) -> str:
        """The address of the path made of `segments`, percent-encoded. Raises ApiError."""
        for segment in segments:
            # A server would resolve dots even when encoded; half a character cannot be encoded.
            if segment in (".", "..") or (not segment.isascii() and re.search("[\ud800-\udfff]", segment)):
                raise ApiError(f"{segment!r} cannot be part of an address", code="invalid")
        return self.base_url + "".join(f"/{quote(segment, safe='')}" for segment in segments)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}", "User-Agent": "fleetops.environments"}

    def tls_context(self) -> ssl.SSLContext:
        """The context that verifies the server and shows our certificate; made once for each set of options."""
        try:
            return _make_tls_context(self.validate_certs, self.ca_path, self.client_cert, self.client_key)
        except FleetError as error:
            if isinstance(error, OptionError) or httpx.URL(self.base_url).scheme == "https":
                raise
            # Plain HTTP verifies no server; this context trusts none.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _find_proxy(base_url: str) -> str | None:
    """The proxy that the environment names; the system's own look-up on macOS is not fork-safe.

    Raises FleetError if it cannot be used. Its value is not shown: it may hold a password.
    """
    url = httpx.URL(base_url)
    proxies = urllib.request.getproxies_environment()
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    # With its port as it was given: httpx leaves the usual one out.
    host = base_url.partition("://")[2].partition("/")[0]
    if bypass(host, proxies) or bypass(url.host, proxies):
        return None
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_http_url(proxy):
        variables = f"{url.scheme.upper()}_PROXY or ALL_PROXY"
        raise FleetError(f"the proxy for {url.scheme} in the environment ({variables}) is not an http or https URL")
    return proxy


def _check_base_url(value: str) -> str:
    if "@" in value:
        raise OptionError("base_url", "must not hold a user name or password; give the key with api_key")
    # The rest is not shown: it may be a key.
    shown = re.split("[?#]", value)[0]
    if not _is_http_url(value):
        got = "a text that may be a key" if re.fullmatch(r"[\w+/=-]{16,}", value) else repr(shown)
        raise OptionError("base_url", f"must be an http or https URL such as https://api.example.com, got {got}")
    if shown != value:
        raise OptionError("base_url", f"must end before '?' and '#', got {shown!r} and more")
    return value.rstrip("/")


def _refuse_clear_text(base_url: str, proxy: str | None, allow_http_help: str) -> None:
    """Raise OptionError if the key would leave this machine without TLS. The relay has the same address and proxy."""
    url = httpx.URL(base_url)
    peers = {url.host: url.host}
    if proxy is not None:
        peers[httpx.URL(proxy).host] = "the proxy of the environment (see NO_PROXY)"
    far = next((name for host, name in peers.items() if not _is_loopback(host)), None)
    if url.scheme == "http" and far is not None:
        problem = f"http would send the key in clear text to {far}; use https, or allow it with {allow_http_help}"
        raise OptionError("base_url", problem)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_http_url(value: str) -> bool:
    if any(character.isspace() or not character.isprintable() for character in value):
        return False
    try:
        url = httpx.URL(value)
        # httpx encodes an unpaired bracket.
        is_host = bool(url.host) and "%" not in url.host
    except (ValueError, httpx.InvalidURL):
        return False
    return url.scheme in ("http", "https") and is_host and 0 < (url.port or 80) < 65536


def _read_key(options: Mapping[str, Any], api_key_help: str) -> str:
    key = options.get("api_key")
    source = "api_key"
    path = options.get("api_key_file")
    if not key and path:
        source = "api_key_file"
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            # The text of an OSError has the path.
            why = one_line(getattr(error, "strerror", None) or error)
            raise OptionError(source, f"cannot read {_show_path(path)}: {why}") from None
        if not key:
            raise OptionError(source, f"{path!r} is empty")
    if not key:
        raise OptionError(source, f"no key was given; {api_key_help}")
    key = str(key)
    if not key.isascii() or not key.isprintable() or " " in key:
        # The value is not shown: a malformed key is a secret too.
        raise OptionError(source, "the key has characters that no key has (white space, control or non-ASCII ones)")
    return key


def _show_path(value: str) -> str:
    """The value of an option that names a file, for an error; hidden where it may be the key itself."""
    folder, name = os.path.split(value)
    is_like_a_path = value.startswith(("/", "./", "../")) or (folder and os.path.lexists(folder))
    # A key is longer than most names of files.
    if os.path.lexists(value) or (is_like_a_path and len(name) <= 32):
        return one_line(repr(value))
    return "the file (its name is hidden, as it may be a key)"


@functools.lru_cache(maxsize=8)
def _make_tls_context(
    validate: bool, ca_path: str | None, client_cert: str | None, client_key: str | None
) -> ssl.SSLContext:
    if validate and ca_path:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            kind = "capath" if Path(ca_path).is_dir() else "cafile"
            context.load_verify_locations(**{kind: ca_path})
        except (OSError, ValueError) as error:
            raise OptionError("ca_path", f"cannot load {_show_path(ca_path)}: {one_line(error)}") from None
    else:
        try:
            context = httpx.create_ssl_context(verify=validate)
        except (OSError, ssl.SSLError) as error:
            what = "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names"
            raise FleetError(f"cannot load {what}: {one_line(error)}") from None
    if client_cert:
        try:
            context.load_cert_chain(client_cert, client_key, password=_refuse_password)
        except (OSError, ValueError) as error:
            files = f"{_show_path(client_cert)} with client_key {client_key and _show_path(client_key)}"
            raise OptionError("client_cert", f"cannot load {files}: {one_line(error)}") from None
    return context


def _refuse_password() -> str:
    raise OptionError("client_key", "is encrypted, which is not supported: nobody is there to type a pass phrase")


# Ansible forks its workers after this import. A context takes longer to make than a request to send.
with contextlib.suppress(FleetError):
    _make_tls_context(True, None, None, None)

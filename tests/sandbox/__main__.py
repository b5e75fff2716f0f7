"""The command line: ``python -m tests.sandbox --devices 500``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .qoder import DEFAULT_QODER_KEY
from .server import DEFAULT_API_KEY, Options, serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sandbox", description=__doc__)
    parser.add_argument("--devices", type=int, default=20, metavar="N", help="how many devices (default 20)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="same size and seed, same fleet (default 1)")
    parser.add_argument("--port", type=int, default=0, metavar="P", help="default 0: any free one, on 127.0.0.1")
    parser.add_argument("--api-key", default=DEFAULT_API_KEY, metavar="KEY", help="the key that is right")
    parser.add_argument("--forbidden-key", metavar="KEY", help="a key that gets 403")
    parser.add_argument("--offline-status", type=int, choices=[404, 503], default=404)
    parser.add_argument("--qoder-environments", type=int, default=20, metavar="N", help="how many (default 20)")
    parser.add_argument("--qoder-generation", choices=["seed", "new"], default="new", help="of Qoder's API")
    parser.add_argument("--qoder-key", default=DEFAULT_QODER_KEY, metavar="KEY", help="Qoder's access token")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    parser.add_argument("--tls-client-ca", type=Path, metavar="FILE", help="require client certificates of this CA")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input is closed")
    serve(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()

"""The commands for the server: serve, token, probe."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

from jammi_duck.config.options import Config
from jammi_duck.config.settings import Settings
from jammi_duck.doors.cli.commands import FAILED, Commands, add_command, add_database, add_group, add_json, names
from jammi_duck.doors.cli.output import print_objects
from jammi_duck.errors import ConfigError

_SERVE = """\
Serve a database over Arrow Flight SQL and HTTP, and Quack.

  jammi-duck serve --db my.duckdb
  jammi-duck serve --db my.duckdb --tokens tokens.json \\
      --flight 0.0.0.0:8081 --http 0.0.0.0:8080
  jammi-duck serve --db my.duckdb --tokens tokens.json --quack

Clients query the sources and the embedding tables with SQL, and search them: jammi_search
and the rest are there. They only read. The server needs pip install 'jammi-duck[server]'.
"""
_TOKEN = """\
Make, list and revoke the tokens by which clients come in.

  jammi-duck token add reports --tokens tokens.json
  jammi-duck token add nightly --role admin --tokens tokens.json
  jammi-duck token list --tokens tokens.json
  jammi-duck token revoke reports --tokens tokens.json
"""
_ADD = """\
Make a token, and print it: it is stored nowhere, only its SHA-256.

  jammi-duck token add reports --role reader --tokens tokens.json
  jammi-duck token add patents --sources patents,claims --tokens tokens.json

A reader queries and searches. An admin also generates, refreshes, compacts, imports and
drops, if [server] allow_write is true.
"""
_LIST = """\
List the tokens, without what would let anybody in.

  jammi-duck token list --tokens tokens.json
"""
_REVOKE = """\
Remove a token; a running server refuses it from then on.

  jammi-duck token revoke reports --tokens tokens.json
"""
_PROBE = """\
Ask a server whether it is ready; the exit code says so.

  jammi-duck probe
  jammi-duck probe --http 127.0.0.1:9080
"""
_PROBE_SECONDS = 5
# DuckDB's own port for it.
_QUACK = "127.0.0.1:9494"
_OPEN_ADDRESSES = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}


def add_to(commands: Commands) -> None:
    """Add these commands."""
    serve = add_command(commands, "serve", _SERVE, _serve)
    add_database(serve, server=False)
    serve.add_argument("--flight", metavar="HOST:PORT", help="where Flight SQL is served (default: 127.0.0.1:8081)")
    serve.add_argument("--http", metavar="HOST:PORT", help="where HTTP is served (default: 127.0.0.1:8080)")
    serve.add_argument(
        "--quack",
        metavar="HOST:PORT",
        nargs="?",
        const=_QUACK,
        help=f"where Quack, DuckDB's own protocol, is served (default: nowhere; alone: {_QUACK})",
    )
    serve.add_argument("--tokens", metavar="FILE", help="the file of tokens (default: server.tokens)")

    group = add_group(commands, "token", _TOKEN)
    add = add_command(group, "add", _ADD, _add)
    add.add_argument("name", metavar="NAME", help="a name for the token, which the log shows")
    add.add_argument(
        "--role", choices=["reader", "admin"], default="reader", help="what it may do (default: %(default)s)"
    )
    add.add_argument(
        "--sources", metavar="A,B", type=names, help="the sources that a reader may see, and their embedding tables"
    )
    revoke = add_command(group, "revoke", _REVOKE, _revoke)
    revoke.add_argument("name", metavar="NAME", help="the token's name, as `jammi-duck token list` shows it")
    listing = add_command(group, "list", _LIST, _list)
    for command in (add, listing, revoke):
        command.add_argument("--tokens", metavar="FILE", help="the file of tokens (default: server.tokens)")
    add_json(listing)

    probe = add_command(commands, "probe", _PROBE, _probe)
    probe.add_argument("--http", metavar="HOST:PORT", help="the server's address for HTTP (default: 127.0.0.1:8080)")


def _serve(options: argparse.Namespace) -> None:
    settings: Settings = options.settings
    try:
        from jammi_duck.doors.server.serving import serve
    except ImportError as error:
        raise ConfigError(f"the server needs '{error.name}'; pip install 'jammi-duck[server]'") from error
    code = serve(settings.config, wait=options.wait, ready=_ready)
    # Threads of gRPC and DuckDB may be in C++ still, where an exit in order would abort the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _ready(where: str) -> None:
    print(f"{where}; Ctrl-C ends the server", flush=True)


def _tokens(options: argparse.Namespace) -> Path:
    config: Config = options.settings.config
    if config.tokens is None:
        raise ConfigError("no file of tokens; name one with --tokens, or in jammi.toml: [server] tokens")
    return config.tokens


def _add(options: argparse.Namespace) -> None:
    from jammi_duck.doors.server.identity import add_token

    print(add_token(_tokens(options), options.name, options.role, options.sources))


def _revoke(options: argparse.Namespace) -> None:
    from jammi_duck.doors.server.identity import revoke_token

    revoke_token(_tokens(options), options.name)
    print(f"revoked '{options.name}'")


def _list(options: argparse.Namespace) -> None:
    from jammi_duck.doors.server.identity import read_tokens

    tokens = read_tokens(_tokens(options))
    if options.json:
        facts = ("name", "role", "sources", "created")
        print_objects({fact: getattr(each, fact) for fact in facts} for each in tokens)
        return
    for each in tokens:
        sources = "all sources" if each.sources is None else ", ".join(each.sources)
        print(f"{each.name}  {each.role}  {sources}  {each.created}")
    if not tokens:
        print("no tokens yet; `jammi-duck token add NAME` makes one")


def _probe(options: argparse.Namespace) -> int:
    config: Config = options.settings.config
    host, _, port = config.http_listen.rpartition(":")
    scheme, context = "http", None
    if config.tls_certificate is not None:
        # The certificate is the server's own, and its name is another than that of this machine.
        scheme, context = "https", ssl.create_default_context(cafile=config.tls_certificate)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if config.tls_client_ca is not None and config.tls_key is not None:
            context.load_cert_chain(config.tls_certificate, config.tls_key)
    url = f"{scheme}://{_OPEN_ADDRESSES.get(host, host)}:{port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS, context=context) as answer:
            print(answer.read().decode())
            return 0
    except urllib.error.HTTPError as error:
        print(error.read().decode(errors="replace"))
    except OSError as error:
        print(f"no answer from {url}: {error}")
    return FAILED

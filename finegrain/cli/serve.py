"""The verbs ``serve``, ``keys`` and ``audit``."""

from __future__ import annotations

import argparse
import ipaddress
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from threading import Event

from finegrain.cli.opening import add_opening_options, open_searcher
from finegrain.cli.verb import Verbs, add_verb
from finegrain.errors import DataError, require
from finegrain.records import printable
from finegrain.serve import DEFAULT
from finegrain.serve.alerts.addresses import network
from finegrain.serve.keys import SCOPES, KeyFile, KeyRing

STOP_SECONDS = 30
"""How long requests may take to finish after the service was asked to stop."""

_KEEP_ALIVE_SECONDS = 15
_MOST_CONNECTIONS = 512


def add_serve_verb(verbs: Verbs) -> None:
    """Add ``finegrain serve`` to the verbs of a parser."""
    serve = add_verb(
        verbs,
        "serve",
        _serve,
        "answer searches over HTTP, with a page for a browser",
        "  finegrain serve model.plan\n"
        "  finegrain serve people=people.plan shop=shop.plan\n"
        "  finegrain keys make keys.json control-room --scope read\n"
        "  finegrain serve model.plan --host 0.0.0.0 --keys keys.json \\\n"
        "      --certificate server.pem --private-key server.key",
    )
    serve.add_argument(
        "plans", nargs="+", metavar="[NAME=]PLAN",
        help="plan with its gallery; several need names, which requests give as ?gallery=NAME",
    )  # fmt: skip
    serve.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080)
    serve.add_argument("--keys", type=Path, metavar="FILE", help="file of keys; see finegrain keys")
    serve.add_argument(
        "--root", type=Path, action="append", default=[], metavar="FOLDER",
        help="folder whose files may be added by reference; may be repeated",
    )  # fmt: skip
    serve.add_argument(
        "--audit", type=Path, metavar="FILE",
        help="log of who searched and changed what; see finegrain audit verify",
    )  # fmt: skip
    serve.add_argument(
        "--log-requests", action="store_true",
        help="write a line of JSON for each request to standard error, without queries",
    )  # fmt: skip
    serve.add_argument(
        "--alerts", type=Path, metavar="FILE",
        help="file of standing queries, which the service runs; see finegrain alerts",
    )  # fmt: skip
    serve.add_argument(
        "--webhook-network", action="append", default=[], metavar="NETWORK",
        help="private network that webhooks of alerts may lead to, such as 10.1.0.0/16; may be "
        "repeated",
    )  # fmt: skip
    serve.add_argument("--read-only", action="store_true", help="refuse all changes")
    serve.add_argument("--certificate", type=Path, metavar="FILE", help="TLS certificate, PEM")
    serve.add_argument("--private-key", type=Path, metavar="FILE", help="its key, PEM")
    add_opening_options(serve)


def add_browse_verb(verbs: Verbs) -> None:
    """Add ``finegrain browse`` to the verbs of a parser."""
    browse = add_verb(
        verbs,
        "browse",
        _browse,
        "open the search page for a gallery in a browser on this machine",
        "  finegrain browse model.plan",
    )
    browse.add_argument("plan", type=Path)
    browse.add_argument("--port", type=int, default=0, help="port (default: a free one)")
    browse.add_argument(
        "--no-browser", action="store_true", help="print the link and open no browser"
    )
    add_opening_options(browse)


def _browse(arguments: argparse.Namespace) -> None:
    with (
        open_searcher(arguments) as searcher,
        searcher.browse(port=arguments.port, open_browser=not arguments.no_browser) as page,
    ):
        print(f"{page}\nstop with Ctrl-C", flush=True)
        with suppress(KeyboardInterrupt):
            Event().wait()


def _serve(arguments: argparse.Namespace) -> None:
    require("fastapi", "serve")
    require("prometheus_client", "serve")
    require("python_multipart", "serve")
    require("uvicorn", "serve")
    from finegrain.serve.app import Settings, create_app
    from finegrain.serve.audit import AuditLog
    from finegrain.serve.logs import log_requests
    from finegrain.serve.reloading import Source
    from finegrain.serve.server import run

    if (arguments.certificate is None) != (arguments.private_key is None):
        raise DataError("--certificate and --private-key belong together; give both")
    if arguments.keys is None and not _is_loopback(arguments.host):
        raise DataError(
            f"refusing to answer on {arguments.host} without keys: anybody could search. Make "
            "a key with: finegrain keys make keys.json NAME, and give --keys keys.json"
        )
    keys = None if arguments.keys is None else KeyRing(KeyFile(arguments.keys))
    if keys is not None and not keys.current():
        raise DataError(
            f"{arguments.keys} has no keys. Make one: finegrain keys make {arguments.keys} NAME"
        )
    if arguments.log_requests:
        log_requests()
    plans = _named(arguments.plans)
    if len(plans) > 1 and arguments.gallery is not None:
        raise DataError("--gallery is for one plan; each of several uses the gallery next to it")
    roots = tuple(root.resolve(strict=True) for root in _folders(arguments.root))
    with ExitStack() as opened:
        searchers = {
            name: opened.enter_context(open_searcher(arguments, plan))
            for name, plan in plans.items()
        }
        audit = None if arguments.audit is None else AuditLog(arguments.audit)
        if audit is not None:
            opened.callback(audit.close)
        settings = Settings(
            keys=keys,
            roots=roots,
            read_only=arguments.read_only,
            audit=audit,
            alerts=arguments.alerts,
            sources={
                name: Source(plan=plan, reopen=partial(open_searcher, arguments, plan))
                for name, plan in plans.items()
            },
            webhook_networks=tuple(map(network, arguments.webhook_network)),
        )
        app = create_app(searchers, settings)
        opened.pop_all()  # the app closes them when it stops
    scheme = "http" if arguments.certificate is None else "https"
    print(f"searching at {scheme}://{arguments.host}:{arguments.port}/  (stop with Ctrl-C)")
    run(
        app,
        host=arguments.host,
        port=arguments.port,
        ssl_certfile=arguments.certificate,
        ssl_keyfile=arguments.private_key,
        log_level="warning",
        access_log=False,  # it would hold queries in addresses
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _named(plans: list[str]) -> dict[str, Path]:
    """Plans by the names of their galleries."""
    if len(plans) == 1 and ("=" not in plans[0] or Path(plans[0]).exists()):
        return {DEFAULT: Path(plans[0])}
    named: dict[str, Path] = {}
    for given in plans:
        name, separator, plan = given.partition("=")
        if not (separator and name and plan):
            raise DataError(f"several plans need names, as in people={given}")
        if name in named:
            raise DataError(f"two plans have the name {name}; give each another name")
        named[name] = Path(plan)
    return named


def _folders(roots: list[Path]) -> list[Path]:
    for root in roots:
        if not root.is_dir():
            raise DataError(f"--root {root} is not a folder")
    return roots


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def add_keys_verb(verbs: Verbs) -> None:
    """Add ``finegrain keys ACTION`` to the verbs of a parser."""
    keys = add_verb(
        verbs,
        "keys",
        None,
        "make, list and revoke the keys of a service",
        "  finegrain keys make keys.json control-room --scope read\n"
        "  finegrain keys make keys.json gate --scope read --where \"camera = 'gate-3'\"\n"
        "  finegrain keys list keys.json\n"
        "  finegrain keys revoke keys.json gate",
    )
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    make = actions.add_parser("make", help="make a key, and show it once")
    make.add_argument("file", type=Path)
    make.add_argument("name", help="name of who uses it")
    make.add_argument(
        "--scope", choices=SCOPES, default="read",
        help="read searches; write also adds, changes and deletes; admin also expires "
        "(default: read)",
    )  # fmt: skip
    make.add_argument("--where", help="filter that is added to every query of this key")
    make.add_argument(
        "--per-minute", type=int, metavar="N",
        help="searches and changes that the key allows in a minute (default: any number)",
    )  # fmt: skip
    make.set_defaults(run=_make)
    show = actions.add_parser("list", help="list the keys, without their secrets")
    show.add_argument("file", type=Path)
    show.set_defaults(run=_list)
    revoke = actions.add_parser("revoke", help="remove a key; a running service notices at once")
    revoke.add_argument("file", type=Path)
    revoke.add_argument("name")
    revoke.set_defaults(run=_revoke)


def _make(arguments: argparse.Namespace) -> None:
    key = KeyFile(arguments.file).make(
        arguments.name, arguments.scope, arguments.where, per_minute=arguments.per_minute
    )
    print(key)


def _list(arguments: argparse.Namespace) -> None:
    for key in KeyFile(arguments.file).read():
        where = "" if key.where is None else f"  where {key.where}"
        limit = "" if key.per_minute is None else f"  {key.per_minute} a minute"
        print(printable(f"{key.name}  {key.scope}  since {key.created_at}{limit}{where}"))


def _revoke(arguments: argparse.Namespace) -> None:
    KeyFile(arguments.file).revoke(arguments.name)
    print(f"revoked {printable(arguments.name)}")


def add_audit_verb(verbs: Verbs) -> None:
    """Add ``finegrain audit verify`` to the verbs of a parser."""
    audit = add_verb(
        verbs,
        "audit",
        None,
        "check the log of a service",
        "  finegrain audit verify audit.jsonl\n"
        "  finegrain audit verify audit.jsonl --contains DIGEST",
    )
    actions = audit.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser("verify", help="check that no record was changed or removed")
    check.add_argument("file", type=Path)
    check.add_argument(
        "--contains", metavar="DIGEST",
        help="digest that an earlier check printed: its record must still be there",
    )  # fmt: skip
    check.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> None:
    require("fastapi", "serve")
    from finegrain.serve.audit import verify

    verified = verify(arguments.file, contains=arguments.contains)
    print(f"{verified.num_records} records, intact\ndigest of the newest: {verified.digest}")

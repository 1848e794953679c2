"""`portcullis serve`: run the gateway until SIGTERM; SIGHUP reloads it in place."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import config_option, default_file, fault_document

if TYPE_CHECKING:
    from gateway.config import Config, LoadedConfig

EXIT_FAILED = 1
EXIT_USAGE = 2

_log = logging.getLogger("portcullis.serve")


@click.command()
@config_option
@click.option("--listen", metavar="HOST:PORT", help="Where the doors listen.")
@click.option("--admin-listen", metavar="HOST:PORT", help='Where probes and metrics listen; "" turns it off.')
@click.option("--workers", type=click.IntRange(0), help="Worker processes; 0 = one a core.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much is logged.")
@click.option("--json", "as_json", is_flag=True, help="Print a config's faults as one JSON document.")
def serve(  # noqa: PLR0917  (click hands over each option)
    file: Path | None,
    listen: str | None,
    admin_listen: str | None,
    workers: int | None,
    log_level: str | None,
    as_json: bool,
) -> None:
    """Run the gateway.

    SIGTERM and SIGINT end it without an error for clients, a second one at once; SIGHUP reads the config again, and
    keeps the running one where the new one has a fault. Exit status: 0 after a signal, 1 for a failure, 2 for a config
    that cannot be used.
    """
    flags = {
        "server.listen": listen,
        "server.admin_listen": admin_listen,
        "server.workers": workers,
        "log.level": log_level,
    }
    overrides = {key: value for key, value in flags.items() if value is not None}
    sys.exit(serve_file(default_file(file), overrides, as_json=as_json))


def _leave(_signal: int, _frame: object) -> None:
    os._exit(0)


def serve_file(
    file: Path | None, overrides: Mapping[str, object], *, program: str = "gateway.app", as_json: bool = False
) -> int:
    """Serve by the config of a file until a signal ends it; give the exit status.

    Faults go to standard error, or with `as_json` to standard output as one document.

    `program` is the module with the composition root.
    """
    # From here on a SIGTERM is no failure; before the workers there is nothing to drain (gateway/cli/supervisor.py).
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    from gateway.config import load_config
    from gateway.errors import ConfigError

    def load() -> LoadedConfig:
        return load_config(file, env=os.environ, overrides=overrides)

    try:
        loaded = load()
        return run(loaded, load, program=program)
    except ConfigError as error:
        if as_json:
            document = {"ok": False, "faults": [fault_document(fault) for fault in error.faults]}
            click.echo(json.dumps(document, indent=2))
        else:
            for fault in error.faults:
                click.echo(str(fault), err=True)
        return EXIT_USAGE


def run(loaded: LoadedConfig, load: Callable[[], LoadedConfig], *, program: str = "gateway.app") -> int:
    """Serve a config until a signal ends it; give the exit status. `load` gives it anew on SIGHUP.

    To be called in the main thread of a process that has started no others. Raises ConfigError for what only this
    machine can tell to be wrong, as a `run_dir` that others may write to.
    """
    from gateway.cli.supervisor import CannotListen, Supervisor
    from gateway.observability.process_log import configure_process_log

    def checked(found: LoadedConfig) -> Config:
        for fault in found.warnings:
            _log.warning("%s", fault)
        return found.config

    configure_process_log(loaded.config.log.level)
    try:
        return Supervisor(checked(loaded), lambda: checked(load()), program=program).run()
    except CannotListen as error:
        _log.error("%s", error)
        return EXIT_FAILED

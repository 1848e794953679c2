"""`portcullis check`: judge a config and its keys with the code that serves."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, config_option, default_file, fail_config, fault_document, mark, say
from gateway.errors import ConfigError, ConfigFault

if TYPE_CHECKING:
    from gateway.config import Config, LoadedConfig


@click.command()
@config_option
@click.option("--online", is_flag=True, help="Fetch the keys of issuers over the network too.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the config, for editors, and do nothing else.")
@as_json_option
def check(file: Path | None, online: bool, schema: bool, as_json: bool) -> None:
    """Load a config and its keys, and name every fault with file, line and remedy.

    Exit status 1 where there is one. Warnings are printed, and change nothing.
    """
    from gateway.config import json_schema, load_config

    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    try:
        loaded = load_config(default_file(file), env=os.environ)
    except ConfigError as error:
        fail_config(error.faults, as_json)
    warnings = list(loaded.warnings)
    if not loaded.config.issuers and not loaded.config.oauth.issuer:
        warnings.append(
            ConfigFault(_shown(loaded), None, "issuers", "none, so every token is refused", "add `[[issuers]]`")
        )
    if not _answers_anybody(loaded.config):
        warnings.append(
            ConfigFault(_shown(loaded), None, "routes", "none, so every request is refused", "add `[[routes]]`")
        )
    issuers, faults = _issuers(loaded, online, warnings)
    policies, policy_faults = _policies(loaded)
    faults += policy_faults
    faults += _texts(loaded)
    document = {
        "ok": not faults,
        "file": str(loaded.path or ""),
        "faults": [fault_document(fault) for fault in faults],
        "warnings": [fault_document(fault) for fault in warnings],
        "issuers": issuers,
        "routes": len(loaded.config.routes),
        "policies": policies,
        "origins": {key: {"kind": origin.kind, "place": origin.place} for key, origin in loaded.origins.items()},
    }

    def speak() -> None:
        count = len(loaded.config.issuers), len(loaded.config.routes)
        own = " and its own" if loaded.config.oauth.issuer else ""
        click.echo(f"{mark(True)} {_shown(loaded)}: {_many(count[0], 'issuer')}{own}, {_many(count[1], 'route')}")
        for issuer in issuers:
            usable = None if issuer["status"] == "not asked" else issuer["status"] == "ok"
            click.echo(f"{mark(usable)} {issuer['issuer']}: {issuer['text']}")
        if policies is not None:
            click.echo(f"{mark(True)} {policies} {'policy' if policies == 1 else 'policies'}")
        for warning in warnings:
            click.echo(f"{click.style('!', fg='yellow')} {warning}")
        for fault in faults:
            click.echo(f"{mark(False)} {fault}", err=True)

    say(document, as_json, speak)
    sys.exit(1 if faults else 0)


def _texts(loaded: LoadedConfig) -> list[ConfigFault]:
    """Read the texts of log-in that the config brings, and say what is wrong with them."""
    login = loaded.config.login
    if not login.texts:
        return []
    from gateway.front.login.reader_language import configured_catalogue

    try:
        configured_catalogue(login.texts, loaded.base_dir)
    except ValueError as error:
        return [ConfigFault(_shown(loaded), None, "login.texts", str(error), "see docs/login.md")]
    return []


def _issuers(
    loaded: LoadedConfig, online: bool, warnings: list[ConfigFault]
) -> tuple[list[dict[str, object]], list[ConfigFault]]:
    """Load keys and say how each issuer stands; with it, what is wrong. Odd keys in a set are warnings."""
    from gateway.cli.issuers import is_local, load_issuers
    from gateway.tokens.control import rules_of

    issuers = loaded.config.issuers
    states = {
        state.issuer: state
        for _, state in load_issuers([issuer for issuer in issuers if online or is_local(issuer)], loaded.base_dir)
    }
    found: list[dict[str, object]] = []
    faults: list[ConfigFault] = []
    for index, issuer in enumerate(issuers):
        key = f"issuers[{index}]"
        place = next((f"{key}.{name}" for name in ("jwks_file", "secret", "jwks_uri") if getattr(issuer, name)), key)
        try:
            rules_of(issuer)
        except ValueError as error:
            faults.append(loaded.fault_at(key, str(error)))
        state = states.get(issuer.issuer)
        if state is None:
            text = "its keys are fetched when it is served; `--online` tries that"
            found.append({"issuer": issuer.issuer, "status": "not asked", "keys": 0, "text": text})
            continue
        if state.error or not state.keys:
            faults.append(loaded.fault_at(place, state.error or "no usable key"))
        warnings.extend(loaded.fault_at(place, fault, "this key is not used") for fault in state.faults)
        text = state.error or _many(state.keys, "usable key")
        status = "unavailable" if state.error or not state.keys else "ok"
        found.append({"issuer": issuer.issuer, "status": status, "keys": state.keys, "text": text})
    return found, faults


def _policies(found: LoadedConfig) -> tuple[int | None, list[ConfigFault]]:
    """Load the policies as a worker does: give how many there are (None: none are configured), and what is wrong."""
    config = found.config
    if not config.policy.path:
        return None, []
    from gateway.front.policies import as_config_fault, check_fit, sources_of
    from gateway.policy.faults import PolicyFault
    from gateway.policy.repository import PolicyRepository

    try:
        loaded = PolicyRepository(sources_of(config.policy)).load()
        check_fit(config, loaded)
        return len(loaded.engine), []
    except ConfigError as error:
        return None, [found.fault_at(each.key, each.problem, each.hint) for each in error.faults]
    except PolicyFault as error:
        return None, [as_config_fault(fault) for fault in error.faults]


def _answers_anybody(config: Config) -> bool:
    authzen = config.authzen
    return bool(config.routes or config.introspection.clients or authzen.clients or authzen.open_on_loopback)


def _shown(loaded: LoadedConfig) -> str:
    return "no file, defaults" if loaded.path is None else loaded.path.name


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"

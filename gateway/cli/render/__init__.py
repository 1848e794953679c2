"""`portcullis render`: the proxy's side of a config, one proxy a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from gateway.cli.output import as_json_option, config_option, default_file, fail, fail_config, mark, say
from gateway.errors import ConfigError

PROXIES = ("nginx", "traefik", "caddy", "haproxy", "envoy")
LISTEN = ":8000"


def render_proxy(
    proxy: str,
    file: Path | None,
    *,
    full: bool = False,
    listen: str = LISTEN,
    app: str = "",
) -> dict[str, str]:
    """Return the files for one of PROXIES, by name, the main one first.

    `full` makes a config that stands alone. The proxy listens at `listen`; `app` is behind routes without an upstream.
    Raises ConfigError for a config that does not load, CannotRender for one that the proxy cannot express.
    """
    from gateway.cli.render.caddy import render_caddy
    from gateway.cli.render.envoy import render_envoy
    from gateway.cli.render.haproxy import render_haproxy
    from gateway.cli.render.nginx import render_nginx
    from gateway.cli.render.site import PLACEHOLDER, Site, site_of
    from gateway.cli.render.traefik import render_traefik
    from gateway.config import load_config

    renderers: dict[str, Callable[..., dict[str, str]]] = {
        "nginx": render_nginx,
        "traefik": render_traefik,
        "caddy": render_caddy,
        "haproxy": render_haproxy,
        "envoy": render_envoy,
    }
    site: Site = site_of(load_config(file, env=os.environ).config, listen=listen, fallback=app or PLACEHOLDER)
    return renderers[proxy](site, full=full)


@click.command()
@click.argument("proxy", type=click.Choice(PROXIES))
@config_option
@click.option("--full", is_flag=True, help="A config that stands alone, not a piece of one.")
@click.option("--listen", default=LISTEN, show_default=True, metavar="HOST:PORT", help="Where the proxy listens.")
@click.option("--app", default="", metavar="URL", help="The app behind routes without an upstream.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write the files into this folder.")
@click.option("--force", is_flag=True, help="Overwrite them there.")
@as_json_option
def render(
    *, proxy: str, file: Path | None, full: bool, listen: str, app: str, out: Path | None, force: bool, as_json: bool
) -> None:
    """Print the config for the proxy in front of the gateway.

    It asks the gateway about every request and hands identity headers to the apps, after it removed what the client
    sent under their names.
    """
    from gateway.cli.render.site import CannotRender

    try:
        files = render_proxy(proxy, default_file(file), full=full, listen=listen, app=app)
    except ConfigError as error:
        fail_config(error.faults, as_json)
    except CannotRender as error:
        fail(str(error), as_json)
    if out is not None:
        written = write_files(files, out, force=force, as_json=as_json)
        lines = "\n".join(f"{mark(True)} {path}" for path in written)
        say({"ok": True, "files": written}, as_json, lambda: click.echo(lines))
        return

    def speak() -> None:
        for name, text in files.items():
            if len(files) > 1:
                click.echo(f"{'--' if name.endswith('.lua') else '#'} ==> {name} <==")
            click.echo(text, nl=False)

    say({"ok": True, "files": files}, as_json, speak)


def write_files(files: dict[str, str], folder: Path, *, force: bool, as_json: bool) -> list[str]:
    """Write files into a folder, all or none of them where some are there already; give their paths."""
    paths = {folder / name: text for name, text in files.items()}
    present = [str(path) for path in paths if path.exists()]
    if present and not force:
        fail(f"`{present[0]}` is there already; `--force` overwrites it", as_json)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in paths.items():
            path.write_text(text)
    except OSError as error:
        fail(f"`{error.filename}`: {(error.strerror or 'cannot be written').lower()}", as_json)
    return [str(path) for path in paths]

"""Read the config from all its sources into one `Config`, or say everything that is wrong with it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from gateway.config.checks import find_complaints
from gateway.config.complaints import Complaint
from gateway.config.conversion import Misfit, find_misfits, is_text, key_text
from gateway.config.knobs import MIB, Config
from gateway.config.toml_lines import Path as KeyPath
from gateway.config.toml_lines import TomlLines
from gateway.errors import ConfigError, ConfigFault

CONFIG_BYTES_MAX = 1 * MIB
ENV_PREFIX = "PORTCULLIS_"
_ARRAYS = ("issuers", "routes")
_SINGLE = tuple(name for name in Config.__struct_fields__ if name not in _ARRAYS)  # none can be forgotten here
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: the line of the file, the name of the variable, or the flag."""

    kind: Literal["default", "file", "env", "flag"]
    place: str = ""


_DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A config that may serve. `warnings` do not stop it; `origins` has all values that are not defaults."""

    config: Config
    path: Path | None
    warnings: tuple[ConfigFault, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def base_dir(self) -> Path:
        """The folder at which relative paths in the config start."""
        return Path.cwd() if self.path is None else self.path.parent

    def origin_of(self, key: str) -> Origin:
        """Tell where the value of a key such as `server.listen` or `issuers[0].audiences` came from."""
        return self.origins.get(key, _DEFAULT)

    def fault_at(self, key: str, problem: str, hint: str = "") -> ConfigFault:
        """Make a fault that was found after loading, with the place of its key, or of what lacks it."""
        holder = key
        while holder not in self.origins and "." in holder:
            holder = holder.rpartition(".")[0]
        origin = self.origin_of(holder)
        if origin.kind == "env":
            return ConfigFault("environment", None, origin.place, problem, hint)
        file, _, line = origin.place.rpartition(":")
        if origin.kind == "file":
            return ConfigFault(file, int(line), key, problem, hint)
        return ConfigFault("config" if self.path is None else self.path.name, None, key, problem, hint)


def load_config(
    path: Path | None, *, env: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
) -> LoadedConfig:
    """Return the config of the file `path` (None = no file), overlaid with `env` and then with `overrides`.

    `env` holds variables such as `PORTCULLIS_SERVER__LISTEN` or `PORTCULLIS_ISSUERS__0__ISSUER`; strings are taken as
    they stand, everything else is written as in TOML or JSON. `overrides` are flags by key:
    `{"server.listen": "127.0.0.1:0"}`. `env:NAME` secrets are looked up in `env`, then in the process's environment.
    Paths come back absolute; relative ones start at the file's folder. Raises ConfigError with all faults.
    """
    source = _Source(None if path is None else path.absolute(), {} if env is None else env)
    source.read_file()
    source.overlay_env()
    source.overlay_flags({} if overrides is None else overrides)
    misfits = [*source.misfits, *find_misfits(source.tree, Config)]
    config, kept = _sound_parts(source.tree, [misfit.path for misfit in misfits])
    faults = [source.fault(misfit) for misfit in misfits]
    warnings = [source.fault(misfit) for misfit in source.notes]
    for complaint in find_complaints(config, source.base_dir, {**os.environ, **source.env}):
        fault = source.fault(_with_places(complaint, kept, source))
        (warnings if complaint.is_warning else faults).append(fault)
    if faults:
        raise ConfigError(sorted(faults, key=lambda fault: (fault.file, fault.line or 0)))
    return LoadedConfig(_absolute(config, source.base_dir), source.path, tuple(warnings), source.origins())


class _Source:
    """The raw tree of all sources, and where each part of it came from."""

    def __init__(self, path: Path | None, env: Mapping[str, str]) -> None:
        self.path = path
        self.env = env
        self.base_dir = Path.cwd() if path is None else path.parent
        self.tree: dict[str, object] = {}
        self.misfits: list[Misfit] = []
        self.notes: list[Misfit] = []
        self._lines = TomlLines("")
        self._overlaid: dict[KeyPath, Origin] = {}

    @property
    def _shown(self) -> str:
        if self.path is None:
            return "config"
        return str(self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path)

    def read_file(self) -> None:
        """Parse the file; without its values nothing else can be judged, so its faults are raised at once."""
        if self.path is None:
            return
        try:
            data = self.path.read_bytes()
            text = data.decode()
        except FileNotFoundError:
            self._stop(None, "there is no such file", "`portcullis init` writes one")
        except OSError as error:
            self._stop(None, f"cannot be read: {(error.strerror or 'unreadable').lower()}")
        except UnicodeDecodeError as error:
            self._stop(data[: error.start].count(b"\n") + 1, "not UTF-8", "TOML files are UTF-8")
        if len(data) > CONFIG_BYTES_MAX:
            self._stop(None, f"longer than {CONFIG_BYTES_MAX} bytes")
        try:
            self.tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self._stop_at_syntax(str(error), text)
        except RecursionError:
            self._stop(None, "nested too deeply")
        self._lines = TomlLines(text.replace("\r\n", "\n"))

    def _stop_at_syntax(self, message: str, text: str) -> None:
        found = _TOML_PLACE.search(message)
        problem = message[: found.start()] if found else message
        if found and found[1]:
            line, column = int(found[1]), int(found[2])
            self._stop(line, f"column {column}: no TOML: {problem[:1].lower()}{problem[1:]}")
        self._stop(text.rstrip("\n").count("\n") + 1, f"no TOML: {problem[:1].lower()}{problem[1:]}")

    def _stop(self, line: int | None, problem: str, hint: str = "") -> None:
        raise ConfigError([ConfigFault(self._shown, line, "", problem, hint)])

    def overlay_env(self) -> None:
        """Put each `PORTCULLIS_A__B` in its place of the tree."""
        for name in sorted(self.env, key=_natural):
            if not name.startswith(ENV_PREFIX):
                continue
            parts = name.removeprefix(ENV_PREFIX).lower().split("__")
            path: KeyPath = tuple(int(part) if part.isdecimal() and len(part) < 6 else part for part in parts)
            if len(path) == 1 and path[0] not in (*_SINGLE, *_ARRAYS):
                self._note_unread(name, str(path[0]))
                continue
            self._overlaid[path] = Origin("env", name)
            self._put(path, self._value_of(path, self.env[name]))

    def _note_unread(self, name: str, rest: str) -> None:
        """Warn of `PORTCULLIS_SERVER_LISTEN`: with one underscore it is none of ours, but was surely meant to be."""
        for section in (*_SINGLE, *_ARRAYS):
            if rest.startswith(f"{section}_"):
                meant = f"{ENV_PREFIX}{section.upper()}__{rest.removeprefix(section + '_').upper()}"
                self._overlaid[(rest,)] = Origin("env", name)
                self.notes.append(Misfit((rest,), f"`{name}` is not read", f"write `{meant}`"))

    def _value_of(self, path: KeyPath, text: str) -> object:
        """Read a variable: text where text is wanted, else JSON or TOML; what is neither stays text, a misfit."""
        if is_text(Config, path):
            return text
        try:
            return json.loads(text)
        except ValueError:
            pass
        try:
            found = tomllib.loads(f"value = {text}")
        except (tomllib.TOMLDecodeError, RecursionError):
            return text
        return found["value"] if len(found) == 1 else text

    def overlay_flags(self, overrides: Mapping[str, object]) -> None:
        """Put each flag in its place of the tree."""
        for key, value in overrides.items():
            path = tuple(key.split("."))
            self._overlaid[path] = Origin("flag", key)
            self._put(path, value)

    def _put(self, path: KeyPath, value: object) -> None:
        """Set one value, making the tables and at most one new array element on the way."""
        place: object = self.tree
        for depth, part in enumerate(path):
            last = depth == len(path) - 1
            following: object = [] if not last and isinstance(path[depth + 1], int) else {}
            if isinstance(place, dict) and isinstance(part, str):
                place[part] = value if last else place.get(part, following)
                place = place[part]
            elif isinstance(place, list) and isinstance(part, int) and part <= len(place):
                if part == len(place):
                    place.append(following)
                if last:
                    place[part] = value
                place = place[part]
            elif isinstance(place, list):
                self.misfits.append(
                    Misfit(path, f"there is no element {part} before it can be set", f"the next one is {len(place)}")
                )
                return
            else:
                self.misfits.append(Misfit(path, f"`{key_text(path[:depth])}` is no table"))
                return

    def fault(self, misfit: Misfit) -> ConfigFault:
        """Give a misfit its place: the variable or flag it came from, or the line of the file."""
        origin, key = self._origin(misfit.path)
        if origin.kind == "env":
            return ConfigFault("environment", None, key, misfit.problem, misfit.hint)
        if origin.kind == "flag":
            return ConfigFault("command line", None, key, misfit.problem, misfit.hint)
        return ConfigFault(self._shown, self._lines.find(misfit.path), key, misfit.problem, misfit.hint)

    def place_text(self, path: KeyPath) -> str:
        """Name the place of a path inside a sentence: `line 12`, or the variable."""
        origin, key = self._origin(path)
        line = self._lines.find(path)
        return f"`{key}`" if line is None or origin.kind != "file" else f"line {line}"

    def _origin(self, path: KeyPath) -> tuple[Origin, str]:
        """Return where a path came from, and its name there: by the longest part of it that some source has."""
        for length in range(len(path), 0, -1):
            part = path[:length]
            if part in self._overlaid:
                origin = self._overlaid[part]
                return origin, key_text((origin.place, *path[length:]))
            if part in self._lines:
                break
            for overlaid, origin in self._overlaid.items():
                if overlaid[:length] == part:
                    return origin, key_text(path) if origin.kind == "flag" or length < len(path) else origin.place
        return Origin("file"), key_text(path)

    def origins(self) -> dict[str, Origin]:
        """Return where every value that is no default came from, by key."""
        found = {key_text(path): Origin("file", f"{self._shown}:{line}") for path, line in self._lines.paths()}
        found.update({key_text(path): origin for path, origin in self._overlaid.items()})
        return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort `…__2__…` before `…__10__…`, so that array elements arrive in order."""
    return [(int(part), "") if part.isdecimal() and len(part) < 6 else (-1, part) for part in name.split("__")]


def _sound_parts(tree: Mapping[str, object], faulty: Iterable[KeyPath]) -> tuple[Config, dict[str, list[int]]]:
    """Convert the sections and array elements that have no misfit; with them, each kept element's index in the source.

    So the meaning of the rest can be judged in the same run, instead of after the types are mended.
    """
    spoiled = {path[:depth] for path in faulty for depth in (1, 2)}
    sound: dict[str, object] = {name: tree[name] for name in _SINGLE if name in tree and (name,) not in spoiled}
    kept: dict[str, list[int]] = {}
    for name in _ARRAYS:
        elements = tree.get(name, [])
        if not isinstance(elements, list):
            continue
        kept[name] = [index for index in range(len(elements)) if (name, index) not in spoiled]
        sound[name] = [elements[index] for index in kept[name]]
    # msgspec is the judge of types; `find_misfits` only explains. Should they ever differ, nothing loads.
    try:
        return msgspec.convert(sound, Config), kept
    except msgspec.ValidationError as error:
        raise ConfigError([ConfigFault("config", None, "", str(error).lower())]) from None


def _with_places(complaint: Complaint, kept: Mapping[str, list[int]], source: _Source) -> Misfit:
    """Turn indexes of the sound parts back into those of the source, and name the other place where there is one."""

    def original(path: KeyPath) -> KeyPath:
        if len(path) > 1 and isinstance(path[1], int) and path[0] in _ARRAYS:
            return (path[0], kept[str(path[0])][path[1]], *path[2:])
        return path

    problem = complaint.problem
    if complaint.other:
        problem = f"{problem} {source.place_text(original(complaint.other))}"
    return Misfit(original(complaint.path), problem, complaint.hint)


def _absolute(config: Config, base_dir: Path) -> Config:
    """Make every path in the config absolute."""

    def path_of(text: str) -> str:
        return str(base_dir / Path(text).expanduser())

    def reference(text: str, prefix: str) -> str:
        return prefix + path_of(text.removeprefix(prefix)) if text.startswith(prefix) else text

    def store_url(text: str) -> str:
        return reference(reference(text, "sqlite:"), "file:")

    def log(text: str) -> str:
        return text if text in {"off", "-"} else path_of(text)

    replace = msgspec.structs.replace
    server = config.server
    return replace(
        config,
        server=replace(server, run_dir=path_of(server.run_dir)) if server.run_dir else server,
        issuers=tuple(
            replace(
                issuer,
                jwks_file=path_of(issuer.jwks_file) if issuer.jwks_file else "",
                secret=reference(issuer.secret, "file:"),
                introspection_client_secret=reference(issuer.introspection_client_secret, "file:"),
            )
            for issuer in config.issuers
        ),
        store=replace(config.store, url=store_url(config.store.url)),
        # `unix://` is `unix:` to many; as a path it would begin with two slashes.
        routes=tuple(
            replace(route, upstream=reference(route.upstream.replace("unix://", "unix:", 1), "unix:"))
            for route in config.routes
        ),
        introspection=replace(
            config.introspection,
            clients=tuple(replace(one, secret=reference(one.secret, "file:")) for one in config.introspection.clients),
        ),
        sessions=replace(
            config.sessions, url=store_url(config.sessions.url), key=reference(config.sessions.key, "file:")
        ),
        directory=replace(
            config.directory,
            url=store_url(config.directory.url),
            encryption_key=reference(config.directory.encryption_key, "file:"),
        ),
        audit=replace(
            config.audit,
            url=reference(store_url(config.audit.url), "folder:"),
            key=reference(config.audit.key, "file:"),
        ),
        scim=replace(
            config.scim, clients=tuple(replace(one, token=reference(one.token, "file:")) for one in config.scim.clients)
        ),
        admin=replace(
            config.admin,
            tokens=tuple(replace(one, token=reference(one.token, "file:")) for one in config.admin.tokens),
            policies=path_of(config.admin.policies) if config.admin.policies else "",
        ),
        oauth=replace(
            config.oauth,
            encryption_key=reference(config.oauth.encryption_key, "file:"),
            keys_path=path_of(config.oauth.keys_path) if config.oauth.keys_path else "",
            store_url=store_url(config.oauth.store_url),
            clients=tuple(
                replace(
                    client,
                    secret=reference(client.secret, "file:"),
                    jwks_file=path_of(client.jwks_file) if client.jwks_file else "",
                )
                for client in config.oauth.clients
            ),
            strangers=replace(
                config.oauth.strangers, initial_token=reference(config.oauth.strangers.initial_token, "file:")
            ),
        ),
        policy=replace(
            config.policy,
            path=path_of(config.policy.path) if config.policy.path else "",
            schema=path_of(config.policy.schema) if config.policy.schema else "",
            entities=path_of(config.policy.entities) if config.policy.entities else "",
            relations=replace(config.policy.relations, url=store_url(config.policy.relations.url)),
            sources=tuple(
                replace(source, url=store_url(source.url), secret=reference(source.secret, "file:"))
                for source in config.policy.sources
            ),
            cache=replace(config.policy.cache, shared_url=store_url(config.policy.cache.shared_url)),
        ),
        authzen=replace(
            config.authzen,
            clients=tuple(replace(one, secret=reference(one.secret, "file:")) for one in config.authzen.clients),
        ),
        log=replace(
            config.log,
            access=log(config.log.access),
            audit=log(config.log.audit),
            decisions_to=log(config.log.decisions_to),
        ),
    )

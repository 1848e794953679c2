"""How verbs reach the stores of a config from outside the running gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.cli.folders import lasting_dir
from gateway.cli.output import default_file, fail, fail_config
from gateway.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from gateway.config import LoadedConfig

T = TypeVar("T")


def load(file: Path | None, as_json: bool) -> LoadedConfig:
    """Load a config, or end with what is wrong."""
    from gateway.config import load_config

    try:
        return load_config(default_file(file), env=os.environ)
    except ConfigError as error:
        fail_config(error.faults, as_json)


def with_run_dir(loaded: LoadedConfig, work: Callable[[Path], Awaitable[T]], as_json: bool) -> T:
    """Run `work` with the folder of embedded stores, or end with what is wrong with a store."""

    async def working() -> T:
        run_dir = lasting_dir(loaded.config.server.run_dir, os.environ)
        if run_dir is None:
            raise ValueError("there is no folder for the embedded store; set server.run_dir")
        return await work(run_dir)

    try:
        return asyncio.run(working())
    except (StoreUnavailable, ValueError) as error:
        fail(str(error), as_json)
    except ConfigError as error:
        fail_config(error.faults, as_json)


def lines(texts: Sequence[str]) -> Iterator[str]:
    """Yield the arguments of a command line; "-" stands for the lines of standard input."""
    for text in texts:
        if text != "-":
            yield text
            continue
        for line in sys.stdin:
            if line.strip():
                yield line.strip()

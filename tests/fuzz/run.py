"""Fuzz every target for a while and print one line for each: `make fuzz`.

Three modes, the best that the machine can do unless `--mode` says another; the line names it:

- `coverage`: libFuzzer through atheris, ASan and coverage counters in the extensions (clang). Needs clang with its
  runtime and a Python that atheris has wheels for; it gets a virtual environment and a build of its own.
- `asan`: our own mutations on the build of `make asan` (gcc's ASan and UBSan); guided by outcomes, not by coverage.
- `plain`: the same on the installed build; finds wrong answers and crashes, but no silent overread.

Exit code 1 on a finding; what led to it is in `build/fuzz/findings/NAME/`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import fuzz
from tests.fuzz.child import rescue
from tests.sanitize import asan, tree

FOLDER = tree.ROOT / "build" / "fuzz"
ATHERIS_PYTHONS = ("3.13", "3.12", "3.14")  # those that atheris 3 has wheels for, July 2026
PACKAGES = ("atheris>=3", "cryptography>=50", "cython>=3.3.1,<3.4", "setuptools>=80", "typing_extensions")
GRACE_S = 120


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how the targets run."""

    mode: str
    python: str
    tree: Path
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    executions: int
    seconds: float
    crashes: int
    words: str  # what a failed child said last

    def line(self, mode: str) -> str:
        rate = self.executions / self.seconds if self.seconds else 0
        return f"{self.name:<12} {self.executions:>12,} executions {rate:>10,.0f}/s {self.crashes:>3} crashes   {mode}"


# ---- the modes ----


def python_candidates() -> Iterable[str]:
    """Name interpreters that may be there, best first."""
    for version in ATHERIS_PYTHONS:
        if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
            yield sys.executable
        yield f"python{version}"
        yield from map(str, sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}*/bin/python"), reverse=True))
        shared = Path("~/.local/share/uv/python").expanduser()
        yield from map(str, sorted(shared.glob(f"cpython-{version}*/bin/python{version}")))


def find_atheris_python() -> str:
    """Return an interpreter that atheris has wheels for and that extensions can be compiled for, or raise Missing."""
    probe = (
        "import ensurepip, os, sys, sysconfig, venv; "
        "header = os.path.join(sysconfig.get_paths()['include'], 'Python.h'); "
        "print('%d.%d' % sys.version_info[:2], os.path.exists(header))"
    )
    for candidate in python_candidates():
        try:
            answer = subprocess.run([candidate, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError):
            continue
        if answer[0] in ATHERIS_PYTHONS and answer[1] == "True":
            return candidate
    raise tree.Missing(
        "no Python 3.12 to 3.14 with headers, which atheris needs; "
        "remedy: apt-get install python3.13-venv python3.13-dev, or uv python install 3.13"
    )


def find_clang() -> str:
    """Return clang, proved to have its ASan runtime, or raise Missing."""
    clang = tree.need("clang", "apt-get install clang")
    tried = subprocess.run(
        [clang, "-fsanitize=address,fuzzer-no-link", "-x", "c", "-", "-o", os.devnull],
        input="int main(void) { return 0; }",
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        raise tree.Missing(
            "clang has no sanitizer runtime; remedy: apt-get install libclang-rt-14-dev (of clang's version)"
        )
    return clang


def coverage_setting() -> Setting:
    """Make the virtual environment and the instrumented build. Raises Missing."""
    clang = find_clang()
    base = find_atheris_python()
    venv = FOLDER / "venv"
    python = venv / "bin" / "python"
    stamp = venv / "stamp"
    wanted = json.dumps([base, PACKAGES])
    copy = FOLDER / "tree"
    with tree.locked(FOLDER):
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([base, "-m", "venv", "--clear", str(venv)], check=True)
            pip = [
                str(python),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--prefer-binary",
                *PACKAGES,
            ]
            installed = subprocess.run(pip, capture_output=True, text=True, check=False)
            if installed.returncode != 0:
                last = (installed.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise tree.Missing(f"atheris could not be installed ({last}); remedy: give pip a way to its index")
            stamp.write_text(wanted)
        tree.copy_tree(copy)
        tree.build(copy, str(python), {"PORTCULLIS_FUZZ": "1", "CC": clang, "LDSHARED": f"{clang} -shared"})
    for binary in (copy / "gateway" / "_native").glob("*.so"):
        if b"__sanitizer_cov_" not in binary.read_bytes():
            raise tree.Missing(f"{binary.name} was compiled without coverage; remedy: rm -r {copy}")
    locate = "import atheris, pathlib; print(pathlib.Path(atheris.path()) / 'asan_with_fuzzer.so')"
    preload = subprocess.run([str(python), "-c", locate], capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": preload,
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(copy),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1",
    }
    return Setting("coverage (atheris, ASan)", str(python), copy, environment)


def asan_setting() -> Setting:
    """Use the build of `make asan`. Raises Missing."""
    environment = asan.prepare()
    # A child's report goes to its stderr, which this runner reads.
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
        environment[name] = re.sub(r"log_path=[^:]*:?", "", environment[name])
    return Setting("mutation (ASan, UBSan; no coverage)", sys.executable, asan.TREE, environment)


def plain_setting() -> Setting:
    return Setting("mutation (no sanitizer, no coverage)", sys.executable, tree.ROOT, dict(os.environ))


SETTINGS = {"coverage": coverage_setting, "asan": asan_setting, "plain": plain_setting}


def best_setting() -> Setting:
    """Return the best mode that this machine can do; say why a better one is not."""
    for make in (coverage_setting, asan_setting):
        try:
            return make()
        except tree.Missing as missing:
            print(f"fuzz: {missing}", flush=True)
    return plain_setting()


# ---- the runs ----


def run_target(setting: Setting, name: str, seconds: int, seed: int) -> Result:
    coverage = setting.mode.startswith("coverage")
    command = [setting.python, "-m", "tests.fuzz.child", name, "--folder", str(FOLDER)]
    command += ["--seconds", str(seconds), "--seed", str(seed), *(["--coverage"] if coverage else [])]
    begin = time.monotonic()
    try:
        finished = subprocess.run(
            command,
            cwd=setting.tree,
            env=setting.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds + GRACE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(name, 0, 0.0, 1, f"the target hung: no end {GRACE_S} s after its time")
    if finished.returncode != 0:
        rescue(FOLDER / "findings" / name)
    output = finished.stdout.decode(errors="replace")
    executions = _figure(r"stat::number_of_executed_units:\s*(\d+)|\"executions\": (\d+)", output)
    failed = finished.returncode != 0 or executions == 0
    return Result(
        name, executions, min(time.monotonic() - begin, seconds) or 1.0, int(failed), output[-8000:] if failed else ""
    )


def _figure(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(next(filter(None, found[-1]))) if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="TARGET", help=f"of {', '.join(fuzz.names())}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--mode", choices=SETTINGS, help="the best that works here, by default")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="targets at the same time (default: CPUs)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations without coverage")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(fuzz.names()))
    if unknown:
        parser.error(f"no target `{unknown[0]}`; there are {', '.join(fuzz.names())}")
    try:
        setting = SETTINGS[options.mode]() if options.mode else best_setting()
    except tree.Missing as missing:
        print(f"portcullis: {missing}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(options.jobs) as pool:
        started = [
            pool.submit(run_target, setting, name, options.seconds, options.seed)
            for name in options.names or fuzz.names()
        ]
        results = [running.result() for running in started]
    for result in results:
        if result.crashes:
            print(f"---- {result.name}: inputs in {FOLDER / 'findings' / result.name}, seed {options.seed}")
            print(result.words)
    for result in results:
        print(result.line(setting.mode))
    return 1 if any(result.crashes for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

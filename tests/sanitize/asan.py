"""Run the native tests under AddressSanitizer and UBSan, then look for leaks: `make asan`.

Builds all extensions with gcc's sanitizers in `build/asan/tree`, a copy of the checkout, and preloads libasan into the
stock interpreter, with PYTHONMALLOC=malloc so that every Python object has red zones of its own. Any report is a
failure, also one of a child process. Leaks are counted by `leaks.py`, since LeakSanitizer would report the
interpreter's own at its end.
Arguments go to pytest in place of `tests/native`: `python tests/sanitize/asan.py tests/native/test_json_scan.py -x`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.sanitize import tree

FOLDER = tree.ROOT / "build" / "asan"
TREE = FOLDER / "tree"
REPORTS = FOLDER / "reports"
BUILD = {"PORTCULLIS_ASAN": "1", "CC": "gcc", "LDSHARED": "gcc -shared"}
TESTS_S_MAX = 1800
LEAKS_S_MAX = 900


def libasan() -> str:
    """Return the path of gcc's libasan, or raise Missing."""
    gcc = tree.need("gcc", "apt-get install gcc")
    found = [
        subprocess.run([gcc, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(path).is_absolute() and Path(path).exists() for path in found):
        raise tree.Missing("gcc has no libasan and libubsan; remedy: apt-get install gcc (Fedora: libasan libubsan)")
    return str(Path(found[0]).resolve())


def runtime_environment(preload: str) -> dict[str, str]:
    """Return what a sanitized interpreter needs.

    Reports go to files: pytest would swallow them with a dying process.
    """
    return {
        "LD_PRELOAD": preload,
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(TREE),
        "PYTHONFAULTHANDLER": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": ":".join(
            (
                f"log_path={REPORTS / 'asan'}",
                "abort_on_error=1",  # SIGABRT lets faulthandler add the Python stack
                "detect_leaks=0",
                "detect_stack_use_after_return=1",
                "strict_string_checks=1",
                "allocator_may_return_null=1",
            )
        ),
        "UBSAN_OPTIONS": f"log_path={REPORTS / 'ubsan'}:print_stacktrace=1:halt_on_error=1:abort_on_error=1",
    }


def prepare() -> dict[str, str]:
    """Build the sanitized copy; return the environment to run it in. Raises Missing."""
    preload = libasan()
    with tree.locked(FOLDER):
        tree.copy_tree(TREE)
        tree.build(TREE, sys.executable, BUILD)
    REPORTS.mkdir(exist_ok=True)
    take_reports()
    return {**os.environ, **runtime_environment(preload)}


PLANTED = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
ctypes.memmove(libc.malloc(16), bytes(64), 17)
"""


def prove_alive(environment: dict[str, str]) -> str:
    """Return what is wrong with the sanitizers, or nothing: a run that cannot report is worth nothing."""
    for name in tree.compiled(TREE / "_native"):
        binary = TREE / "gateway" / "_native" / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
        if b"__asan_report_" not in binary.read_bytes() or b"__ubsan_handle_" not in binary.read_bytes():
            return f"{name} is not instrumented"
    subprocess.run([sys.executable, "-c", PLANTED], env=environment, capture_output=True, check=False)
    reports = take_reports()
    return "" if any("heap-buffer-overflow" in report for report in reports) else "a planted overflow is not reported"


def take_reports() -> list[str]:
    """Return what the sanitizers wrote since the last call."""
    reports = [path.read_text(errors="replace") for path in sorted(REPORTS.iterdir())]
    for path in REPORTS.iterdir():
        path.unlink()
    return [report for report in reports if report]


def run(label: str, command: list[str], environment: dict[str, str], seconds_max: int) -> bool:
    """Run one part in the copy; tell whether it was clean."""
    begin = time.monotonic()
    try:
        code = subprocess.run(command, cwd=TREE, env=environment, timeout=seconds_max, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"asan: {label}: not finished after {seconds_max} s", flush=True)
        return False
    print(f"asan: {label}: exit code {code} after {time.monotonic() - begin:.0f} s", flush=True)
    return code == 0


def main(arguments: list[str]) -> int:
    try:
        print(f"asan: compiling {len(tree.compiled())} modules in {TREE}", flush=True)
        environment = prepare()
    except tree.Missing as missing:
        print(f"portcullis: {missing}", file=sys.stderr)
        return 2
    fault = prove_alive(environment)
    if fault:
        print(f"asan: NOT clean: {fault}")
        return 1
    environment.setdefault("PORTCULLIS_HYPOTHESIS", "quick")
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(arguments or ["tests/native"])]
    clean = run("tests", pytest, environment, TESTS_S_MAX)
    if not arguments:
        clean &= run("leaks", [sys.executable, "-m", "tests.sanitize.leaks"], environment, LEAKS_S_MAX)
    reports = take_reports()
    for report in reports:
        print(report)
    print(f"asan: {'clean' if clean and not reports else 'NOT clean'}, {len(reports)} sanitizer reports")
    return 0 if clean and not reports else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run one fuzz target in a process of its own; `run.py` starts it.

`python -m tests.fuzz.child NAME --replay FILE` runs a finding once more, in any build.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import random
import sys
import time
from pathlib import Path

from tests import fuzz
from tests.fuzz.mutate import mutate

POOL_MAX = 4096  # inputs that a run without coverage keeps
LENGTH_BYTES = 4
CLOCK_EVERY = 64  # executions between two looks at the clock


def save(data: bytes, findings: Path) -> None:
    (findings / f"crash-{hashlib.sha256(data).hexdigest()[:24]}").write_bytes(data)


def rescue(findings: Path) -> None:
    """Save the input at which a run without coverage died, if one did."""
    current = findings / "current"
    if current.exists():
        kept = current.read_bytes()
        length = int.from_bytes(kept[:LENGTH_BYTES], "little")
        save(kept[LENGTH_BYTES : LENGTH_BYTES + length], findings)
        current.unlink()


def write_seeds(target: fuzz.Target, corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:24]).write_bytes(seed)


def with_coverage(target: fuzz.Target, seconds: int, corpus: Path, findings: Path) -> None:
    """Hand over to libFuzzer, which ends the process; it prints its figures on stderr."""
    import atheris  # type: ignore[import-untyped,unused-ignore]  # in the runner's own environment only

    words = corpus.parent / f"{target.name}.dict"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words))

    def once(data: bytes) -> None:
        target.run(data)  # the outcome would mean something to libFuzzer

    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.length_max}",
        f"-dict={words}",
        f"-artifact_prefix={findings}/",
        "-timeout=10",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


def without_coverage(target: fuzz.Target, seconds: int, findings: Path, seed: int) -> int:
    """Mutate for `seconds`; keep inputs whose outcome is new. Print the figures as JSON.

    The input at hand lies in a mapped file, so that it outlives a process that a sanitizer stops.
    """
    chooser = random.Random(seed)
    pool = list(target.seeds())
    outcomes: set[object] = set()
    current = findings / "current"
    current.write_bytes(bytes(LENGTH_BYTES + 2 * target.length_max))
    executions = 0
    begin = time.monotonic()
    with current.open("r+b") as file, mmap.mmap(file.fileno(), 0) as kept:
        while executions % CLOCK_EVERY or time.monotonic() - begin < seconds:
            data = pool[executions] if executions < len(pool) and not outcomes else mutate(chooser, pool, target.words)
            data = data[: target.length_max]
            kept[: LENGTH_BYTES + len(data)] = len(data).to_bytes(LENGTH_BYTES, "little") + data
            executions += 1
            outcome = target.run(data)
            if outcome not in outcomes:
                outcomes.add(outcome)
                if len(pool) < POOL_MAX:
                    pool.append(data)
    current.unlink()
    print(json.dumps({"executions": executions, "seconds": time.monotonic() - begin, "outcomes": len(outcomes)}))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=fuzz.names())
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    target = fuzz.load(options.name)
    if options.replay is not None:
        print(target.run(options.replay.read_bytes()))
        return 0
    findings = options.folder / "findings" / options.name
    findings.mkdir(parents=True, exist_ok=True)
    if options.coverage:
        corpus = options.folder / "corpus" / options.name
        write_seeds(target, corpus)
        with_coverage(target, options.seconds, corpus, findings)
        return 0
    return without_coverage(target, options.seconds, findings, options.seed)


if __name__ == "__main__":
    sys.exit(main())

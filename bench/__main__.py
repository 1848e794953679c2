"""`python -m bench micro|policy|zipf|flows|journey|soak|all [--quick] [--json FILE]`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from bench.table import save


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the gateway against its peers.")
    parser.add_argument("what", choices=("micro", "policy", "zipf", "flows", "journey", "soak", "all"))
    parser.add_argument("--quick", action="store_true", help="short rounds: an order of magnitude, no verdict")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, not into bench/results")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (3)")
    parser.add_argument("--seconds", type=int, help="length of one run of the journey (5)")
    parser.add_argument("--peer", action="append", default=[], help="only peers whose name holds this; repeatable")
    parser.add_argument("--door", action="append", default=[], choices=("forward", "proxy"), help="only this door")
    parser.add_argument("--minutes", type=float, help="length of the soak (10)")
    return parser.parse_args()


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)  # Through all `finally`: no server stays behind.


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _leave)
    results: dict[str, object] = {}
    if arguments.what in {"micro", "all"}:
        from bench import micro

        results["micro"] = micro.run(micro.QUICK if arguments.quick else micro.FULL)
    if arguments.what in {"policy", "all"}:
        from bench import policy

        results["policy"] = policy.run(policy.QUICK if arguments.quick else policy.FULL)
    if arguments.what in {"zipf", "all"}:
        from bench import zipf

        results["zipf"] = zipf.run(zipf.QUICK if arguments.quick else zipf.FULL)
    if arguments.what in {"flows", "all"}:
        from bench import flows

        results["flows"] = flows.run(flows.QUICK if arguments.quick else flows.FULL)
    if arguments.what in {"journey", "all"}:
        from dataclasses import replace

        from bench import journey

        try:
            peers = journey.choose_peers(arguments.peer)
        except ValueError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        plan = journey.quick_plan(peers) if arguments.quick else journey.Plan(peers=peers)
        changes = {
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "doors": tuple(arguments.door) or None,
        }
        plan = replace(plan, **{name: value for name, value in changes.items() if value is not None})
        results["journey"] = journey.run(plan)
    if arguments.what == "soak":
        from bench import soak

        minutes = arguments.minutes or (0.5 if arguments.quick else 10.0)
        results["soak"] = soak.run(minutes)
    print(f"\nwritten to {save(arguments.what, results, arguments.json)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

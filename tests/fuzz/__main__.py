"""Fuzz for some minutes, with fresh seeds.

    python -m tests.fuzz --minutes 60
    python -m tests.fuzz --minutes 5 --targets manifest index
    python -m tests.fuzz --targets manifest --seed 1234         the round that a message names
    python -m tests.fuzz --replay fuzz-failures/manifest-1a2b3c4d

Rounds of all targets take turns in a child process. Where a case ends it (a crash, a hang outside Python), the files
that it was reading are stored too. Exit status: 0 nothing found, 1 failing cases, each stored with its files.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m tests.fuzz`; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="default: 60")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--seed", type=int, help="run one round of this seed")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="read one kept case")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), metavar="FOLDER",
                        help="where failing cases are kept (default: fuzz-failures)")  # fmt: skip
    options = parser.parse_args(arguments)
    from tests.fuzz.running import TARGETS

    if unknown := set(options.targets or ()) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.replay:
        return _replay(options.replay)
    names = options.targets or list(TARGETS)
    if options.seed is not None:
        return _fuzz(names, 0.0, options.failures, options.seed)
    return _fuzz(names, options.minutes, options.failures, None)


def _replay(folder: Path) -> int:
    from tests.fuzz.bounds import FaultError
    from tests.fuzz.running import TARGETS, files_in, read_files

    target = TARGETS[folder.name.rpartition("-")[0]]
    with tempfile.TemporaryDirectory() as place:
        try:
            read_files(target, files_in(folder / "case"), Path(place))
        except FaultError as error:
            print(error)
            return 1
    print(f"{folder}: read, or refused in words")
    return 0


def _fuzz(names: list[str], minutes: float, failures: Path, seed: int | None) -> int:
    from tests.fuzz.child import Child, num_of
    from tests.fuzz.running import files_in, keep

    end = time.monotonic() + 60 * minutes
    rounds: Counter[str] = Counter()
    kept: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as place:
        child = None
        while not rounds or time.monotonic() < end or rounds.total() < len(names):
            name = names[rounds.total() % len(names)]
            rounds[name] += 1
            child = child or Child(Path(place))
            fresh = secrets.randbelow(2**32) if seed is None else seed
            answer = child.round(name, fresh)
            if answer is None:  # the child is gone, or hangs
                why = f"seed {fresh}: the process ended ({child.end()}) or hung while it read this case"
                answer, child = (why, files_in(Path(place, "case"))), None
            why, drawn = answer
            if why:
                folder = keep(name, drawn, f"seed {fresh}\n{why}", failures)
                kept[folder] = why
                print(
                    f"{name}, seed {fresh}: {why.strip().splitlines()[0][:200]}; kept in {folder}", flush=True
                )
        if child:
            print(
                f"resident at the end: {child.resident_mib()} MiB, after the first round {child.first_mib} MiB"
            )
            child.end()
    num_cases = sum(num_of(name) * count for name, count in rounds.items())
    print(f"{num_cases} cases of {len(names)} kinds, {len(kept)} failing")
    return 1 if kept else 0


if __name__ == "__main__":
    sys.exit(main())

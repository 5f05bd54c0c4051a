"""`python -m tests.drills --minutes 60`: drills until the time is over, then a table of them."""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.drills.damage import damage_one
from tests.drills.kills import kill_and_go_on
from tests.drills.scene import EXTENDED, make_scene


def main() -> None:
    """Prints every drill, and exits with 1 where one did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first drill")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    outcomes: Counter[str] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        scene = make_scene(Path(folder) / "scene")
        whole = scene.copy(Path(folder) / "whole").command(*EXTENDED)
        seed = given.seed
        while time.monotonic() < end:
            drill = kill_and_go_on if seed % 5 == 4 else damage_one
            tried = drill(scene, whole, Path(folder) / "work", seed)
            outcomes[tried.outcome] += 1
            faults += bool(tried.fault)
            print(f"{seed}: {tried.what}: {tried.outcome}", flush=True)
            if tried.fault:
                print(f"  DID NOT HOLD: {tried.fault}", flush=True)
            seed += 1
    print(f"\n{outcomes.total()} drills, {faults} did not hold")
    for outcome, count in outcomes.most_common():
        print(f"  {outcome}: {count}")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()

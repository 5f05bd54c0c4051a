"""A command is killed at a random moment, as often as the drill says, and given again.

What has to hold: the results are those of a command that nobody killed, byte for byte, and no
temporary file is left.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.conftest import KDBENCH
from tests.drills.damage import Tried
from tests.drills.scene import EXTENDED, Outcome, Scene


def kill_and_go_on(scene: Scene, whole: Outcome, work: Path, seed: int, kills: int = 2) -> Tried:
    """Kills a command that makes everything but the records anew, and lets it end at last.

    Args:
        scene: gives the suite and the records.
        whole: what the command comes to where nobody kills it.
        work: gets the copy.
        seed: of the moments.
        kills: how often.
    """
    chance = random.Random(seed)
    shutil.rmtree(work, ignore_errors=True)
    copy = scene.copy(work)
    shutil.rmtree(copy.run)
    for name in ("models", "teacher", "encoded", "tokenizers"):
        shutil.rmtree(copy.cache / name)
    moments = [chance.uniform(1, 12) for _ in range(kills)]
    for moment in moments:
        process = subprocess.Popen(
            [*KDBENCH, *EXTENDED],
            cwd=copy.path,
            env=copy.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    what = f"killed after {', '.join(f'{moment:.1f} s' for moment in moments)}"
    ended = copy.command(*EXTENDED)
    if ended.code != 0:
        return Tried(what, f"exit {ended.code}", ended.text[-2000:])
    left = [str(path) for path in copy.path.rglob(".*.tmp")]
    if left:
        return Tried(what, "temporary files left", str(left))
    if ended.results != whole.results:
        return Tried(what, "other results", ended.text[-2000:])
    return Tried(what, "the same results", "")

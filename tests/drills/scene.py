"""A small run and its cache, made once and copied for every drill."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import KDBENCH, MICRO_SUITE

RUN = ("run", "--suite", "micro.yaml", "--backend", "transformers", "--jobs", "1")
FINISHED = (*RUN, "--objectives", "forward-kl", "--seeds", "1")
EXTENDED = (*RUN, "--objectives", "forward-kl,sft", "--seeds", "1")


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        code: its exit code.
        text: what it printed.
        results: scores and answers of every finished trial, by path.
    """

    code: int
    text: str
    results: dict[str, bytes]


@dataclass(frozen=True)
class Scene:
    """A folder with `micro.yaml`, `results/micro` and `cache`."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "results" / "micro"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def environment(self) -> dict[str, str]:
        own = {"KDBENCH_CACHE": str(self.cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return {**os.environ, **own}

    def copy(self, path: Path) -> "Scene":
        shutil.copytree(self.path, path)
        return Scene(path)

    def files(self) -> list[Path]:
        """All that kdbench wrote and reads again."""
        found = [*self.run.rglob("*"), *self.cache.rglob("*")]
        return sorted(path for path in found if path.is_file() and path.suffix != ".lock")

    def command(self, *arguments: str) -> Outcome:
        ended = subprocess.run(
            [*KDBENCH, *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Outcome(ended.returncode, ended.stdout + ended.stderr, self.results())

    def results(self) -> dict[str, bytes]:
        done = [path.parent for path in self.run.glob("trials/*/*/DONE.json")]
        paths = [
            path
            for trial in done
            for path in [*trial.glob("scores.parquet"), *trial.glob("generations/*.jsonl")]
        ]
        return {str(path.relative_to(self.run)): path.read_bytes() for path in sorted(paths)}


def make_scene(path: Path) -> Scene:
    """A scene whose run is finished."""
    path.mkdir(parents=True)
    (path / "micro.yaml").write_text(MICRO_SUITE)
    scene = Scene(path)
    ended = scene.command(*FINISHED)
    assert ended.code == 0, ended.text
    return scene

"""A few of the drills: every kind of artefact damaged once, and one run killed twice."""

from pathlib import Path

import pytest

from tests.drills.damage import damage_one
from tests.drills.kills import kill_and_go_on
from tests.drills.scene import EXTENDED, Outcome, Scene, make_scene

pytestmark = pytest.mark.slow

KINDS = {
    "the teacher's cache": ("cache/teacher",),
    "a model": ("cache/models",),
    "records and ids": ("cache/records", "cache/encoded", "cache/tokenizers"),
    "a finished trial": ("/trials/",),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("drills") / "scene")


@pytest.fixture(scope="module")
def whole(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    ended = scene.copy(tmp_path_factory.mktemp("whole") / "scene").command(*EXTENDED)
    assert ended.code == 0, ended.text
    return ended


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS.keys())
def test_damage_is_named_or_made_good(
    scene: Scene, whole: Outcome, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    tried = damage_one(scene, whole, tmp_path / "work", seed=1, kinds=kinds)
    assert not tried.fault, f"{tried.what}: {tried.outcome}: {tried.fault}"


def test_a_run_that_is_killed_ends_in_the_same_bytes(
    scene: Scene, whole: Outcome, tmp_path: Path
) -> None:
    tried = kill_and_go_on(scene, whole, tmp_path / "work", seed=1)
    assert not tried.fault, f"{tried.what}: {tried.outcome}: {tried.fault}"

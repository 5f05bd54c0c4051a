"""The gallery: pictures that show what an objective does, and a page that follows the registry."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kdbench.api import kl, objective, stateful
from kdbench.authoring.catalogue import PICTURES, TEXT, pictured, stale, text
from kdbench.authoring.pictures import PLACES, End, end, picture, push, student, teacher
from tests.objective_tools import spoiled_registry

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("name", "gradient"),
    [
        ("forward-kl", lambda p, q: q.exp() - p.exp()),
        ("sft", lambda p, q: q.exp() - p.exp()),  # its labels are drawn from the teacher
        ("reverse-kl", lambda p, q: q.exp() * (q - p - kl(q, p))),
    ],
)
def test_the_push_is_minus_the_textbook_gradient(name: str, gradient: Any) -> None:
    wanted = -gradient(teacher(), student())
    assert torch.allclose(push(objective(name)), wanted, atol=1e-12)


def test_descent_on_forward_kl_ends_with_the_moments_of_the_teacher() -> None:
    """The minimum of KL(p || q) over an exponential family matches the family's statistics."""
    for power in (1, 2):
        reached = (end(objective("forward-kl")).logp().exp() * PLACES**power).sum()
        wanted = (teacher().exp() * PLACES**power).sum()
        assert reached.item() == pytest.approx(wanted.item(), abs=1e-3)


def test_reverse_kl_ends_at_the_minimum_of_a_grid() -> None:
    value = objective("reverse-kl")
    reached = end(value)
    means = torch.linspace(-3, 3, 61, dtype=torch.float64).tolist()
    widths = torch.linspace(0.2, 3, 57, dtype=torch.float64).tolist()
    grid = [End(mean, width) for mean in means for width in widths]
    students = torch.stack([place.logp() for place in [reached, *grid]])
    values = value(teacher().expand_as(students), students)
    assert values.argmin() == 0
    near = grid[int(values[1:].argmin())]
    assert (reached.mean, reached.width) == pytest.approx((near.mean, near.width), abs=0.1)


def test_forward_kl_covers_both_modes_and_reverse_kl_seeks_one() -> None:
    covering, seeking = end(objective("forward-kl")), end(objective("reverse-kl"))
    assert covering.width > 1.5 > 0.6 > seeking.width
    assert seeking.mean == pytest.approx(-1.6, abs=0.05)


def test_a_stateful_objective_is_told_of_every_step() -> None:
    """One that turns from the one KL into the other ends where the other does."""

    class Turning:
        def __init__(self) -> None:
            self.progress = 0.0

        def per_token(self, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
            return kl(q, p) if self.progress < 0.5 else kl(p, q)

        def after_step(self, loss: float, progress: float) -> None:
            self.progress = progress

    with spoiled_registry():
        stateful("turning", source="this test")(Turning)
        reached, wanted = end(objective("turning")), end(objective("forward-kl"))
    assert (reached.mean, reached.width) == pytest.approx((wanted.mean, wanted.width), abs=0.02)


def test_a_bare_name_is_pictured_with_its_grid() -> None:
    alphas = [variant.params["alpha"] for variant in pictured("amid")]
    assert alphas == [-5, -3, -1, -0.5, 0, 0.5, 1]
    assert len(pictured("amid[alpha=3]")) == 1


def test_a_picture_names_the_references_and_the_ends() -> None:
    drawn = picture(pictured("tvd"), "svg").decode()
    for label in ("forward-kl", "reverse-kl", "tvd", f"ends at {end(objective('tvd')).mean:.2f}"):
        assert label in drawn


def test_the_same_picture_has_the_same_bytes() -> None:
    assert picture(pictured("jsd"), "svg") == picture(pictured("jsd"), "svg")


def test_the_page_is_current() -> None:
    """In a process of its own: other tests register objectives."""
    check = [sys.executable, "-m", "kdbench.authoring", "--check", str(DOCS)]
    result = subprocess.run(check, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_new_objective_makes_the_page_stale() -> None:
    with spoiled_registry():

        class Later:
            def __init__(self) -> None: ...

        stateful("later", source="this test")(Later)
        assert TEXT in stale(DOCS)
        assert "### later" in text()


def test_the_gallery_holds_what_the_page_shows_and_little_else() -> None:
    shown = set(re.findall(rf"{PICTURES}/([^)]+)\)", (DOCS / TEXT).read_text()))
    files = {path.name: path.stat().st_size for path in (DOCS / PICTURES).iterdir()}
    assert shown == set(files)
    assert sum(files.values()) < 2_000_000

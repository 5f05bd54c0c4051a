"""All tasks of the suite."""

from .asking import FACTS, PAIRS
from .reading import READING
from .task import Exercise
from .writing import IDEAS, LONG

TASKS: tuple[Exercise, ...] = (*FACTS, *READING, *IDEAS, *LONG, *PAIRS)

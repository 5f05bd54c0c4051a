"""All tasks of the suite."""

from .asking import FACTS, PAIRS
from .reading import READING
from .task import Task
from .writing import IDEAS, LONG

TASKS: tuple[Task, ...] = (*FACTS, *READING, *IDEAS, *LONG, *PAIRS)

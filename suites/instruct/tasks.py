"""All tasks of the suite."""

from suites.instruct.asking import FACTS, PAIRS
from suites.instruct.reading import READING
from suites.instruct.task import Task
from suites.instruct.writing import IDEAS, LONG

TASKS: tuple[Task, ...] = (*FACTS, *READING, *IDEAS, *LONG, *PAIRS)

"""Seeded drills: files are damaged and commands killed; what comes of it is compared.

`python -m tests.drills --minutes 60` runs as many as there is time for and prints what was tried
and what held. A few of them run with the tests.
"""

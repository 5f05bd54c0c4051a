"""The one exception that a user's mistake raises; the command line prints it and exits with 2."""


class UserError(Exception):
    """Something the person at the keyboard can mend.

    The message says what is wrong, where (file, line, field) and what to do about it.
    """


def first_line(error: BaseException) -> str:
    """What another library says went wrong, without the paragraphs that some add."""
    return next((line for line in str(error).splitlines() if line.strip()), "no message")

"""The one exception that a user's mistake raises; the command line prints it and exits with 2."""


class UserError(Exception):
    """Something the person at the keyboard can mend.

    The message says what is wrong, where (file, line, field) and what to do about it.
    """

"""Errors that a person can fix."""


class UserError(Exception):
    """A mistake in the input: one line that names the file, key or value and says what to do.

    The command line prints the message alone (no traceback) and exits with status 2.
    """

"""Errors that a person can mend."""


class UserError(Exception):
    """A mistake in the input: one line that names the file, key or value and the mend.

    The command line prints the message alone (no traceback) and exits with status 2.
    """

"""The exception for errors that the user can fix."""


class UserError(Exception):
    """A mistake in the input: one line that names the file, key or value and says what to do.

    The command line prints only the message, without a traceback, and exits with status 2.
    """

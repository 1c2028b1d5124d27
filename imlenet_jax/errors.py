"""The one error type that users meet."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one sentence that names the file, record or flag and says what to do. Commands print it
    without a traceback and exit with status 2.
    """


class DataWarning(UserWarning):
    """Something in the data that the user should know of, but that does not stop the work."""

"""The one exception that a user is meant to read."""


class UserError(ValueError):
    """A problem that the user can cure: bad input, bad setting, missing file.

    The message names the file and field and says what to do; jobs print it without a
    stack trace and exit with status 2.
    """

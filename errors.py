"""The exceptions that a user is meant to read, and the one warning."""


class HandscopeError(ValueError):
    """Something the user gave, or left on disk, does not fit.

    The message is one or two sentences: what was expected, what was found, where, and what to do. The command line
    prints it without a traceback and exits with status 2.
    """


class Unusable(HandscopeError):
    """A file could not be read or written now: it is locked, forbidden or on a disk that fails or is full.

    What is in the file is not at fault, and is unchanged: nobody is to replace it for that.
    """


class HandscopeWarning(UserWarning):
    """Something works, but not as a reader of the result might think; the message says what to know or to do."""

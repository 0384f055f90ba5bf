"""The one error type whose message is for people: no traceback is printed for it."""


class BedError(Exception):
    """Something the user can act on; the message says what and how."""

"""What a command raises for a user's mistake."""


class UserError(Exception):
    """An error that the user can correct; printed without a traceback, with exit code 2."""

"""What a command raises for a user's mistake."""


class UserError(Exception):
    """Something that the user can put right; the message is a sentence, the exit code is 2."""

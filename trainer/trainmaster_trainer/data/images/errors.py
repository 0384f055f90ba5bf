"""What reading an image raises."""


class UnreadableError(Exception):
    """A file that is no image, or one that isn't decoded; the message is a clause that follows the file's name."""


def reason_of(error: OSError) -> str:
    """Return why the system can't read a file, as a clause without its path."""
    return "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))

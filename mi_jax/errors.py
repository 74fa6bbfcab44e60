"""The one exception for input that the caller can correct. Programming errors raise ordinary exceptions."""


class InputError(ValueError):
    """Input that cannot be used: one sentence that says what is wrong, what was expected and what to do.

    Command-line programs print the sentence and leave with status 2; no traceback is shown.
    """

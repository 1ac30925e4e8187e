"""The error of files that hold no sound model."""


class ModelFileError(ValueError):
    """A model file or checkpoint that is damaged, foreign, too new, or unsafe to read."""

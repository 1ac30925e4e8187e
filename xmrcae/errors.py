"""The error of files that hold no sound model, and what refuses them."""


class ModelFileError(ValueError):
    """A model file or checkpoint that is damaged, foreign, too new, or unsafe to read."""


def require(condition: object, text: str) -> None:
    """Raise a ValueError unless a condition holds."""
    if not condition:
        raise ValueError(text)

"""What the native engine says where another engine has to compute a model."""


class NotCovered(Exception):
    """The native engine does not compute this model, or not here; the text says why. Other engines may."""

"""Durable state: the files of a location, the indexes beside them, and the catalog that speaks of them."""

from jammi_duck.storage.files import manifest

__all__ = ["manifest"]

"""What can be wrong with what a node keeps on disk."""

from protocol.errors import StromkreisError


class StoreError(StromkreisError):
    """The store could not be read or written: what was wrong, in which file, and what to do."""


class StoreHeldError(StoreError):
    """Another process has the store open."""


class SchemaError(StoreError):
    """The tables are not those of any version that we know: what was found, what was expected, what to do."""


class SealError(StoreError):
    """A sealed value does not open in its place: another key's, another row's, or altered."""

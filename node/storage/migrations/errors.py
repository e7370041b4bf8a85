"""What a migration can find wrong with a store."""

from protocol.errors import StromkreisError


class SchemaError(StromkreisError):
    """The tables are not those of any version that we know: what was found, what was expected, what to do."""

"""Bills from commitments, and the tariffs that they are computed by."""

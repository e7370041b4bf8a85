"""Everything durable of the coordinator: tables, migrations, and a repository for each owner; no SQL is elsewhere."""

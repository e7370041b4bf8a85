"""
What a node keeps on disk.

`engine` is the file, its writer and its errors; `migrations` is the schema, in numbered steps; `repositories` holds the
SQL, a module for each owner.
"""

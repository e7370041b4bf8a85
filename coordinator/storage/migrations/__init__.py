"""
Forward migrations of the coordinator's database, one file in `versions` for each revision, on SQLite and PostgreSQL.

A revision says what it does in terms of its own time: it imports nothing of this program, whose tables move on.
"""

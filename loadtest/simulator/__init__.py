"""The ring simulator: whole rings of the real state machines on a seeded event heap, with faults, crashes and liars."""

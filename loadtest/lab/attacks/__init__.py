"""
Attacks: each takes what somebody sees (series, links) and what an attacker may know beforehand, and returns a guess.

None receives truth about its targets; the scores are computed elsewhere (`loadtest.lab.experiments`).
"""

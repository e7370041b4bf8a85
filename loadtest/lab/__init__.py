"""
The privacy lab: what can somebody still learn from a metering scheme?

Every scheme runs on the same households and days and leaves a transcript of messages (`transcript`).  What a coalition
of parties holds is derived from that by one rule for all schemes (`derivation`).  Attacks (`attacks`) receive such
views and no truth; `metrics` scores their guesses with confidence intervals beside two controls, the same attack
without a view and the same ring without the household.  `docs/explanation/privacy.md` explains the results.
"""

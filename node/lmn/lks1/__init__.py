"""The wired LMN's own interface: SML in TLS in HDLC (`session`), and the first pairing of a meter (`sym`)."""

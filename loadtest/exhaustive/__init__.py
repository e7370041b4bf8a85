"""What a lying head can open on small rings: an abstract model of one round, searched exhaustively or by sampling."""

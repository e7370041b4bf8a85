"""
Makers' own formats, read by tables (EN 13757-3 leaves CI A0 to B7 and DIF 0F to the maker).

Such telegrams name nothing: a table says by whose meters they are sent and what stands where.  What a table says was
found out by readers of meters and is not the maker's word, so its values are never for billing; the octets are given as
well.
"""

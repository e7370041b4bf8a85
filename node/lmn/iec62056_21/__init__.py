"""IEC 62056-21: meters that answer in lines of text, over an optical head, a current loop or a P1 socket."""

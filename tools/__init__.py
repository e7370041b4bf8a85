"""What the people who work on Stromkreis run and its users do not: reference pages, figures of the code, releases."""

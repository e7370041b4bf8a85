"""COSEM objects as XML, the content of web service messages (annex II to BSI TR-03109-1, COSEM/HTTP web services)."""

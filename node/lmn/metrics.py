"""What the LMN counts, for Prometheus.  No label names a gateway, a meter or a household."""

from prometheus_client import Counter

LMN_ERRORS = Counter("stromkreis_lmn_errors_total", "Faults of meters and their links", ["protocol", "reason"])
LMN_READINGS = Counter("stromkreis_lmn_readings_total", "Readings delivered", ["protocol"])

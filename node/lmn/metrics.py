"""What the LMN counts, for Prometheus.  No label names a gateway, a meter or a household."""

from prometheus_client import Counter, Gauge

LMN_ERRORS = Counter("stromkreis_lmn_errors_total", "Faults of meters and their links", ["protocol", "reason"])
LMN_READINGS = Counter("stromkreis_lmn_readings_total", "Readings delivered", ["protocol"])
LMN_CERTIFICATES_RENEWED = Counter(
    "stromkreis_lmn_certificates_renewed_total", "Certificates of the wired LMN renewed and in use", ["certificate"]
)
LMN_CERTIFICATE_END = Gauge(
    "stromkreis_lmn_certificate_end_timestamp_seconds", "When the first certificate of the wired LMN ends; 0: none"
)
LMN_METRICS = (LMN_ERRORS, LMN_READINGS, LMN_CERTIFICATES_RENEWED, LMN_CERTIFICATE_END)

_ENDS: dict[str, float] = {}
LMN_CERTIFICATE_END.set_function(lambda: min(_ENDS.values(), default=0.0))


def certificate_ends(meter_id: str, at_unix_s: float) -> None:
    """Tell `LMN_CERTIFICATE_END` when the first certificate between a meter and its gateway ends."""
    _ENDS[meter_id] = at_unix_s

"""What to try when a meter gives nothing: advice by the reason of an error, with the line as it is set."""

from __future__ import annotations

from typing import Final

from node.lmn.links import parse_link
from node.lmn.profiles import MeterProfile

_SILENT: Final = frozenset(
    {"no_answer", "silent", "meter_silent", "hdlc_timeout", "dlms_timeout", "lmn_timeout", "dlms_silence"}
)
_KEY: Final = "the meter encrypts: give its key by --key HEX, encryption and authentication key one after the other"
_ADVICE: Final = {
    "lmn_absent": "stromkreis sniff --search LINK tells who is on the line; id= in LINK names one",
    "lmn_tls": "--key certificate= and private_key= are the gateway's, meter_certificate= the meter's, of one pairing",
    "dlms_association": "--key encryption=, authentication= and system_title= for GMAC, --key password= for a password,"
    " none for a public client; address=CLIENT/LOGICAL says as whom to ask",
    "dlms_authentication": "another authentication key than the meter's, or an altered telegram",
    "dlms_key_wrong": "another encryption key than the meter's",
    "mac_mismatch": "another key than the meter's; a meter's number and its key belong together",
    "key_missing": _KEY,
    "dlms_key_missing": _KEY,
    "no_key": "the meter encrypts: give its key by --key METER=HEX or --key HEX",
    "not_secured": "it speaks in the clear: leave --key out, if it may",
    "ciphered": "a telegram under a key that does not say whose it is: nobody has described how its title is agreed",
    "title_missing": "the key alone does not open it: the telegram names no system title",
    "dlms_layout": "layouts= in LINK, or --layout, names another table; docs/reference/lmn.md has the form of your own",
    "sunspec_missing": "map= in LINK names a table of registers, a shipped one or your own (docs/reference/lmn.md)",
    "mode_e_missing": "leave mode_e=1 out: the meter speaks IEC 62056-21 at its head, -p iec62056-21 reads it",
    "receiver_refused": "the command V tells a CUL's firmware: it must be one with wireless M-Bus, and have that mode",
    "noise": "under a key only encrypted telegrams are taken; another protocol, baud= or frame= looks like this too",
}


def line_settings(link: str) -> str:
    """How a serial line is set, in brackets; empty for any other."""
    line = parse_link(link)
    return f" (baud={line.baudrate}, frame={line.bytesize}{line.parity}{line.stopbits})" if line.path else ""


def hint(reason: str, profile: MeterProfile) -> str:
    """A sentence on what to try, empty where the error says it all."""
    if reason not in _SILENT:
        return _ADVICE.get(reason, "")
    tried = [f"does it speak {profile.protocol}?"]
    if settings := line_settings(profile.link):
        tried.append(f"is the line set as the meter's{settings}?")
    if profile.protocol in ("mbus", "dlms", "iec62056-21", "sml"):
        tried.append(f"is its address right ({profile.address or 'none given: address='})?")
    if profile.protocol == "mbus":
        tried.append("--search finds the meters of a bus")
    if profile.protocol in ("sml", "iec62056-21", "dlms"):
        tried.append("one that speaks by itself is heard without --ask")
    return " ".join(tried)

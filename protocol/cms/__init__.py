"""
CMS as the smart meter gateway uses it (BSI TR-03109-1, detailed specifications 2.0, chapter 5).

A message is ContentInfo(SignedData(AuthEnvelopedData([CompressedData] content))): what is sent is encrypted to one
recipient and then signed, so that whoever passes it on can check who sent it without learning what.  `protect` and
`unprotect` do all of it; `sign_detached` and `verify_detached` are the second signature suite of table 5.2.

There is no I/O in here: private keys are used through `SignatureKey` and `AgreementKey`, randomness and ephemeral keys
come from an `Entropy` (section 5.5: the security module's).  Received bytes can only raise RemoteProtocolError, whose
text has the reason and the clause and never a key or content.
"""

from protocol.cms.enveloped import AgreementKey, Entropy, open_enveloped, recipients_of, seal
from protocol.cms.keys import KeyPair
from protocol.cms.message import Opened, protect, unprotect
from protocol.cms.signed import SignatureKey, sign, sign_detached, verify, verify_detached
from protocol.cms.structures import Limits
from protocol.cms.suites import CBC_CMAC_SUITE, GCM_SUITE, ContentCipher, Digest, EncryptionSuite

__all__ = [
    "CBC_CMAC_SUITE",
    "GCM_SUITE",
    "AgreementKey",
    "ContentCipher",
    "Digest",
    "EncryptionSuite",
    "Entropy",
    "KeyPair",
    "Limits",
    "Opened",
    "SignatureKey",
    "open_enveloped",
    "protect",
    "recipients_of",
    "seal",
    "sign",
    "sign_detached",
    "unprotect",
    "verify",
    "verify_detached",
]

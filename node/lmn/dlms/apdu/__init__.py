"""
The application layer's messages (xDLMS APDUs, IEC 62056-5-3 clause 10), as data.

Each message is a dataclass whose fields carry their own codec, in the order in which they are sent; so there is one
place per message, encoder and decoder cannot drift apart, and the tests' round trips mean something.  Results are
either the data or the number of a data-access-result, never both: `Data | int`.

`message` says what an APDU is, `association`, `services` and `general` are the APDUs, `codec` finds the one that bytes
are.  The rest of the code says `from node.lmn.dlms import apdu` and knows this one name.
"""

from node.lmn.dlms.apdu.association import (
    ConfirmedServiceError,
    InitiateRequest,
    InitiateResponse,
)
from node.lmn.dlms.apdu.codec import (
    decode_apdu,
    read_apdu,
    results_from_bytes,
    results_to_bytes,
    values_from_bytes,
    values_to_bytes,
)
from node.lmn.dlms.apdu.general import (
    GLOBAL_TAGS,
    Ciphered,
    GeneralBlock,
    GeneralDedicatedCiphering,
    GeneralGlobalCiphering,
)
from node.lmn.dlms.apdu.message import (
    Apdu,
)
from node.lmn.dlms.apdu.services import (
    DATA_ACCESS_RESULTS,
    SUCCESS,
    ActionRequest,
    ActionRequestBlock,
    ActionRequestFirstBlock,
    ActionRequestNext,
    ActionResponse,
    ActionResponseBlock,
    ActionResponseNextBlock,
    DataNotification,
    EventNotification,
    ExceptionResponse,
    GetRequest,
    GetRequestList,
    GetRequestNext,
    GetResponse,
    GetResponseBlock,
    GetResponseList,
    SetRequest,
    SetRequestBlock,
    SetRequestFirstBlock,
    SetRequestList,
    SetRequestListFirstBlock,
    SetResponse,
    SetResponseBlock,
    SetResponseLastBlock,
    SetResponseList,
    SetResponseListLastBlock,
)

__all__ = [
    "DATA_ACCESS_RESULTS",
    "GLOBAL_TAGS",
    "SUCCESS",
    "ActionRequest",
    "ActionRequestBlock",
    "ActionRequestFirstBlock",
    "ActionRequestNext",
    "ActionResponse",
    "ActionResponseBlock",
    "ActionResponseNextBlock",
    "Apdu",
    "Ciphered",
    "ConfirmedServiceError",
    "DataNotification",
    "EventNotification",
    "ExceptionResponse",
    "GeneralBlock",
    "GeneralDedicatedCiphering",
    "GeneralGlobalCiphering",
    "GetRequest",
    "GetRequestList",
    "GetRequestNext",
    "GetResponse",
    "GetResponseBlock",
    "GetResponseList",
    "InitiateRequest",
    "InitiateResponse",
    "SetRequest",
    "SetRequestBlock",
    "SetRequestFirstBlock",
    "SetRequestList",
    "SetRequestListFirstBlock",
    "SetResponse",
    "SetResponseBlock",
    "SetResponseLastBlock",
    "SetResponseList",
    "SetResponseListLastBlock",
    "decode_apdu",
    "read_apdu",
    "results_from_bytes",
    "results_to_bytes",
    "values_from_bytes",
    "values_to_bytes",
]

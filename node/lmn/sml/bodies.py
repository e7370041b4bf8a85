"""
The bodies of the messages of SML 1.04, field by field in the standard's order (DIN VDE 0418-63-9 clause 5).

How each field is encoded stands in `node.lmn.sml.messages`.  Where a field is optional, None is its absence.

The normative text of the three COSEM services was not at hand, and no public implementation has them.  Their fields
here follow the pattern of the other services (who asks, which object, which attributes) and are ours.
"""

from __future__ import annotations

from typing import NamedTuple

from node.lmn.sml.values import ListEntry, PeriodEntry, Time, Tree, Value

Path = tuple[bytes, ...]
_Optional = bytes | None


class OpenRequest(NamedTuple):
    """SML_PublicOpen.Req: `client_id` names the gateway, `server_id` the meter (None: whichever hears it)."""

    codepage: _Optional
    client_id: bytes
    req_file_id: bytes
    server_id: _Optional = None
    username: _Optional = None
    password: _Optional = None
    sml_version: int | None = None


class OpenResponse(NamedTuple):
    """SML_PublicOpen.Res; `ref_time` is the meter's time of sending."""

    codepage: _Optional
    client_id: _Optional
    req_file_id: bytes
    server_id: bytes
    ref_time: Time | None = None
    sml_version: int | None = None


class CloseRequest(NamedTuple):
    """SML_PublicClose.Req."""

    global_signature: _Optional = None


class CloseResponse(NamedTuple):
    """SML_PublicClose.Res."""

    global_signature: _Optional = None


class GetProfilePackRequest(NamedTuple):
    """SML_GetProfilePack.Req: the records of a period, as a table; `object_list` None asks for all columns."""

    server_id: _Optional
    username: _Optional
    password: _Optional
    with_rawdata: bool | None
    begin_time: Time | None
    end_time: Time | None
    parameter_tree_path: Path
    object_list: Path | None = None
    das_details: Tree | None = None


class GetProfileListRequest(NamedTuple):
    """SML_GetProfileList.Req: the records of a period, one message each."""

    server_id: _Optional
    username: _Optional
    password: _Optional
    with_rawdata: bool | None
    begin_time: Time | None
    end_time: Time | None
    parameter_tree_path: Path
    object_list: Path | None = None
    das_details: Tree | None = None


class ProfileHeader(NamedTuple):
    """SML_ProfObjHeaderEntry: one column of a profile pack."""

    obj_name: bytes
    unit: int
    scaler: int


class SignedValue(NamedTuple):
    """SML_ValueEntry: one cell of a profile pack."""

    value: Value
    value_signature: _Optional = None


class ProfilePeriod(NamedTuple):
    """SML_ProfObjPeriodEntry: one row of a profile pack."""

    val_time: Time | None
    status: int
    value_list: tuple[SignedValue, ...]
    period_signature: _Optional = None


class GetProfilePackResponse(NamedTuple):
    """SML_GetProfilePack.Res; `reg_period` in seconds."""

    server_id: bytes
    act_time: Time | None
    reg_period: int
    parameter_tree_path: Path
    header_list: tuple[ProfileHeader, ...]
    period_list: tuple[ProfilePeriod, ...]
    rawdata: _Optional = None
    profile_signature: _Optional = None


class GetProfileListResponse(NamedTuple):
    """SML_GetProfileList.Res: one record of a profile; `reg_period` in seconds."""

    server_id: bytes
    act_time: Time | None
    reg_period: int
    parameter_tree_path: Path
    val_time: Time | None
    status: int
    period_list: tuple[PeriodEntry, ...]
    rawdata: _Optional = None
    period_signature: _Optional = None


class GetProcParameterRequest(NamedTuple):
    """SML_GetProcParameter.Req: the tree below a path."""

    server_id: _Optional
    username: _Optional
    password: _Optional
    parameter_tree_path: Path
    attribute: _Optional = None


class GetProcParameterResponse(NamedTuple):
    """SML_GetProcParameter.Res."""

    server_id: bytes
    parameter_tree_path: Path
    parameter_tree: Tree


class SetProcParameterRequest(NamedTuple):
    """SML_SetProcParameter.Req; a meter answers it with an Attention that says OK, or what was wrong."""

    server_id: _Optional
    username: _Optional
    password: _Optional
    parameter_tree_path: Path
    parameter_tree: Tree


class SetProcParameterResponse(NamedTuple):
    """SML_SetProcParameter.Res, which later versions dropped for the Attention; same fields as the answer to Get."""

    server_id: bytes
    parameter_tree_path: Path
    parameter_tree: Tree


class GetListRequest(NamedTuple):
    """SML_GetList.Req; `list_name` None asks for the meter's standard list."""

    client_id: bytes
    server_id: _Optional = None
    username: _Optional = None
    password: _Optional = None
    list_name: _Optional = None


class GetListResponse(NamedTuple):
    """SML_GetList.Res: what a meter says when asked, and most say unasked; `act_sensor_time` is when it was so."""

    client_id: _Optional
    server_id: bytes
    list_name: _Optional
    act_sensor_time: Time | None
    val_list: tuple[ListEntry, ...]
    list_signature: _Optional = None
    act_gateway_time: Time | None = None


class CosemAttribute(NamedTuple):
    """One attribute (or method parameter) of a COSEM object: its number and its content."""

    attribute: int
    content: Tree


class GetCosemRequest(NamedTuple):
    """SML_GetCosem.Req: attributes of one COSEM object; None asks for all."""

    client_id: bytes
    server_id: _Optional
    username: _Optional
    password: _Optional
    obj_name: bytes
    class_id: int
    class_version: int
    attributes: tuple[int, ...] | None = None


class GetCosemResponse(NamedTuple):
    """SML_GetCosem.Res."""

    client_id: _Optional
    server_id: bytes
    obj_name: bytes
    class_id: int
    class_version: int
    attributes: tuple[CosemAttribute, ...]


class SetCosemRequest(NamedTuple):
    """SML_SetCosem.Req."""

    client_id: bytes
    server_id: _Optional
    username: _Optional
    password: _Optional
    obj_name: bytes
    class_id: int
    class_version: int
    attributes: tuple[CosemAttribute, ...]


class SetCosemResponse(NamedTuple):
    """SML_SetCosem.Res: the attributes as they are now."""

    client_id: _Optional
    server_id: bytes
    obj_name: bytes
    class_id: int
    class_version: int
    attributes: tuple[CosemAttribute, ...] | None = None


class ActionCosemRequest(NamedTuple):
    """SML_ActionCosem.Req: one method of one COSEM object."""

    client_id: bytes
    server_id: _Optional
    username: _Optional
    password: _Optional
    obj_name: bytes
    class_id: int
    class_version: int
    method: CosemAttribute


class ActionCosemResponse(NamedTuple):
    """SML_ActionCosem.Res: what the method returned."""

    client_id: _Optional
    server_id: bytes
    obj_name: bytes
    class_id: int
    class_version: int
    result: CosemAttribute | None = None


class AttentionResponse(NamedTuple):
    """SML_Attention.Res: a request was accepted, or not, and why (`attention_no`, six octets)."""

    server_id: bytes
    attention_no: bytes
    attention_msg: _Optional = None
    attention_details: Tree | None = None


class UnknownBody(NamedTuple):
    """A body whose tag is not in the table, as its bytes: its message's CRC was checked all the same."""

    tag: int
    data: bytes


Body = (
    OpenRequest | OpenResponse | CloseRequest | CloseResponse | GetProfilePackRequest | GetProfilePackResponse
    | GetProfileListRequest | GetProfileListResponse | GetProcParameterRequest | GetProcParameterResponse
    | SetProcParameterRequest | SetProcParameterResponse | GetListRequest | GetListResponse | GetCosemRequest
    | GetCosemResponse | SetCosemRequest | SetCosemResponse | ActionCosemRequest | ActionCosemResponse
    | AttentionResponse | UnknownBody
)  # fmt: skip


class Message(NamedTuple):
    """One SML message: `group` orders messages of a file, `abort_on_error` says what a failure stops (0: nothing)."""

    transaction_id: bytes
    body: Body
    group: int = 0
    abort_on_error: int = 0

"""The drivers that a gateway has, by the names that meter profiles use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from node.lmn.dlms.adapter import DLMS
from node.lmn.iec62056_21.adapter import IEC62056_21
from node.lmn.lks1.adapter import LKS1
from node.lmn.mbus.adapter import MBUS
from node.lmn.modbus.adapter import MODBUS
from node.lmn.p1.adapter import P1
from node.lmn.s0 import S0
from node.lmn.session import Driver
from node.lmn.sml.adapter import SML
from node.lmn.wmbus.adapter import WMBUS

DRIVERS: Final[Mapping[str, Driver]] = MappingProxyType(
    {driver.name: driver for driver in (SML, LKS1, DLMS, MBUS, WMBUS, IEC62056_21, P1, S0, MODBUS)}
)

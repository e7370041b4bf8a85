"""
The MessagePack messages between gateways, heads and coordinator: one table, strict decoding, bounded sizes.

A message is a MessagePack array: its code, then its fields in the order of the class.  Every field carries its
bound in its annotation, and `decode` holds a peer to all of them: wrong count, wrong type, too long, unknown code
or a message that this kind of peer may not send, each is a `RemoteProtocolError`.  Nothing is optional and nothing
is ignored, so two implementations cannot disagree about what was said.

Bitmaps run over ring positions: position p is bit p%8 of byte p//8.  Vectors are little-endian 64-bit words.

`fields` says what a field may be, `coordination`, `ring`, `ranges`, `blame`, `billing` and `enrolment_log` are the
messages, which `registry` knows by the decorator on each class, and `codec` turns them into bytes and back.  The rest
of the code says `from protocol import wire` and knows this one name.
"""

from protocol.wire.billing import *
from protocol.wire.blame import *
from protocol.wire.codec import decode as decode
from protocol.wire.codec import encode as encode
from protocol.wire.coordination import *
from protocol.wire.enrolment_log import *
from protocol.wire.fields import *
from protocol.wire.ranges import *
from protocol.wire.registry import TABLE as TABLE
from protocol.wire.registry import Message as Message
from protocol.wire.registry import RingMessage as RingMessage
from protocol.wire.registry import Sender as Sender
from protocol.wire.registry import message as message
from protocol.wire.registry import sent_by
from protocol.wire.ring import *

FROM_GATEWAY = sent_by(Sender.GATEWAY)
FROM_COORDINATOR = sent_by(Sender.COORDINATOR)
FROM_MEMBER = sent_by(Sender.MEMBER)
FROM_HEAD = sent_by(Sender.HEAD)

"""
DLMS/COSEM (IEC 62056-5-3, -6-1, -6-2): the codec, the client, the push receiver and the driver.

`axdr` and `apdu` know bytes, `security` knows keys, `client` holds a conversation without doing I/O, `listing`
turns what a meter says into readings; only `transport` and `driver` touch a stream.
"""

"""The only part of the protocol room that touches sockets: ZeroMQ over trio, CURVE, ZAP."""

"""
Network emulation: link profiles and scenarios as data, and three back ends that put them into effect.

A *network* is a star: every endpoint (a gateway, a group of gateways, the coordinator) has one link to a hub, and a
link has a *profile* for each direction.  A *scenario* is a timeline of faults.  It is compiled to *network states*, and
a back end applies one state after the other: `namespaces` (a private network of this machine), `tc` (an existing
interface) or `proxy` (a TCP relay without privileges).  The package stands alone: it knows nothing of gateways.
"""

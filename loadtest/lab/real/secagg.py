"""
SecAgg+ by Flower's own workflow and client, in an environment of its own (`make .venv-peers-flower/.ready`).

Flower aggregates floating-point vectors, quantised to 22 bits with random rounding: its sums are not exact, and their
error is part of the result.  Its messages stay inside; what the server learns is its sum.
"""

from __future__ import annotations

import numpy as np

from loadtest.bench.peers import Peer, peer_python
from loadtest.lab.real.run import Inputs, RealRun
from loadtest.lab.schemes.sums import CORRUPT, DROPOUT, secagg_shape
from protocol.dcnet.parameters.choice import choose
from protocol.errors import StromkreisError

SCALE_W = 4096.0  # the workflow clips at 8: up to 32 kW of a household


def run(inputs: Inputs) -> RealRun:
    """One round with all slots as the vector.  Raises StromkreisError where the peer's environment is missing."""
    python = peer_python("flower")
    if python is None:
        raise StromkreisError(
            "Flower's environment .venv-peers-flower is missing; `make .venv-peers-flower/.ready` builds it"
        )
    n = inputs.members
    k = choose(n, CORRUPT, DROPOUT).k
    shares = min(n, k + 1 - k % 2)  # an odd number, the sender counted in
    # The peer silences its first clients: the missing member is put there.
    order = [*([] if inputs.missing is None else [inputs.missing]), *inputs.present]
    vectors = (inputs.readings_w.T[order] / SCALE_W).tolist()
    with Peer(python, "flower_peer.py") as peer:
        answer = peer.order(
            do="sum", vectors=vectors, shares=shares, threshold=shares // 2 + 1, dropped=n - len(inputs.present)
        )
    sums = np.array(answer["mean"], np.float64) * SCALE_W * len(inputs.present)
    return RealRun(secagg_shape(n), None, {}, sums, float(answer["all_s"]), int(answer["up_octets"]) * n, 4)

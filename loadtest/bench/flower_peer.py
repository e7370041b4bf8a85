"""
Flower's SecAgg+ as a process that reads its commands from its standard input.

Runs in a virtual environment of its own (`requirements-peers-flower.lock`), which has the peer and nothing of ours;
hence it imports nothing of ours.  One JSON object per line in, one out, times are CPU seconds:

    {"do": "round", "n": .., "shares": .., "threshold": .., "words": .., "dropped": ..} -> see `Ring.play`
    {"do": "sum", "vectors": [[..]..], "shares": .., "threshold": .., "dropped": ..} -> the same, and their mean
    {"do": "mask", "words": .., "times": ..}                              -> seconds a call of `pseudo_rand_gen`
    {"do": "agree", "times": ..}                                          -> seconds a call of `generate_shared_key`
    {"do": "share" | "combine", "size": .., "threshold": .., "shares": .., "times": ..} -> seconds a call

A round is the real workflow against the real client mod.  In place of Flower's network stands a loop that hands each
client a copy of its message and times it, so that server and clients can be distinguished; neither side's time includes
the copying.  Dropped clients fall silent after they have shared their keys, when their masked vector is due.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from statistics import median
from time import process_time
from types import SimpleNamespace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.compat.common import recorddict_compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.secure_aggregation import secaggplus_workflow as workflow
from flwr.supercore.task_identity import TaskIdentity

VALUE = 0.25
TOLERANCE = 0.02  # a weight of 1 in 1000 leaves 12 of the 22 bits to a value, rounded at random
STAGES = ("setup", "share_keys", "collect", "unmask")


def _octets(content: RecordDict) -> int:
    """The bytes of a message's fields without any framing; numbers count as eight."""

    def size(value: Any) -> int:
        if isinstance(value, list):
            return sum(size(item) for item in value)
        return len(value) if isinstance(value, bytes | str) else 8

    return sum(size(value) for record in content.config_records.values() for value in record.values())


class Ring:
    """One round's clients, and what the workflow wants of a strategy, a client manager and a network."""

    def __init__(self, n: int, words: int, dropped: int, vectors: Sequence[Sequence[float]] = ()) -> None:
        self.identities = range(1, n + 1)
        self.silent = set(list(self.identities)[:: max(1, n // max(1, dropped))][:dropped]) if dropped else set()
        self.contexts = {
            identity: Context(run_id=1, node_id=identity, node_config={}, state=RecordDict(), run_config={})
            for identity in self.identities
        }
        self.parameters = {
            identity: ndarrays_to_parameters([np.array(vectors[identity - 1]) if vectors else np.full(words, VALUE)])
            for identity in self.identities
        }
        self.max_weight = 1.0 if vectors else 1000.0  # every client counts once: all bits are left to its values
        self.stage = 0
        self.network_s = 0.0
        self.client_s: list[list[float]] = [[] for _ in STAGES]
        self.up_octets: list[int] = []
        self.results: list[Any] = []

    def num_available(self) -> int:
        """Of the client manager."""
        return len(self.identities)

    def configure_fit(self, _round: int, parameters: Any, _manager: Any) -> list[tuple[Any, FitIns]]:
        """Of the strategy: everybody."""
        return [(SimpleNamespace(node_id=identity), FitIns(parameters, {})) for identity in self.identities]

    def aggregate_fit(self, _round: int, results: list[Any], _failures: Any) -> tuple[None, dict[str, Any]]:
        """Of the strategy: keep the opened mean."""
        self.results = results
        return None, {}

    def send_and_receive(self, messages: Iterable[Message], timeout: float | None = None) -> list[Message]:  # noqa: ARG002
        """Of the grid."""
        entered_s = process_time()
        answers = []
        octets = 0
        for message in messages:
            identity = message.metadata.dst_node_id
            if self.stage >= STAGES.index("collect") and identity in self.silent:
                continue
            own = Message(deepcopy(message.content), metadata=message.metadata)
            begin = process_time()
            answer = secaggplus_mod(own, self.contexts[identity], self._train)
            self.client_s[self.stage].append(process_time() - begin)
            octets += _octets(answer.content)
            answers.append(answer)
        self.up_octets.append(octets // len(answers))
        self.stage += 1
        self.network_s += process_time() - entered_s
        return answers

    def _train(self, message: Message, _context: Context) -> Message:
        result = FitRes(Status(Code.OK, ""), self.parameters[message.metadata.dst_node_id], 1, {})
        return Message(recorddict_compat.fitres_to_recorddict(result, True), reply_to=message)

    def play(self, shares: int, threshold: int) -> dict[str, Any]:
        """Server seconds by stage, a client's median seconds, everybody's seconds, a client's octets up, the result."""
        context = LegacyContext(
            Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}),
            strategy=self, client_manager=self,
        )  # fmt: skip
        context.state.config_records[workflow.MAIN_CONFIGS_RECORD] = ConfigRecord(
            {workflow.WorkflowKey.CURRENT_ROUND: 1}
        )
        start = recorddict_compat.parameters_to_arrayrecord(ndarrays_to_parameters([np.zeros(1)]), True)
        context.state.array_records[workflow.MAIN_PARAMS_RECORD] = start
        plus = workflow.SecAggPlusWorkflow(
            num_shares=shares, reconstruction_threshold=threshold, clipping_range=8.0, max_weight=self.max_weight
        )
        state = workflow.WorkflowState()
        server_s = []
        steps = (plus.setup_stage, plus.share_keys_stage, plus.collect_masked_vectors_stage, plus.unmask_stage)
        for step in steps:
            self.network_s = 0.0
            begin = process_time()
            if not step(self, context, state):
                raise ValueError(f"the workflow halted in {step.__name__}")
            server_s.append(process_time() - begin - self.network_s)
        opened = parameters_to_ndarrays(self.results[0][1].parameters)[0]
        return {
            "server_s": server_s,
            "client_s": sum(median(each) for each in self.client_s),
            "all_s": sum(server_s) + sum(map(sum, self.client_s)),
            "up_octets": sum(self.up_octets),
            "opened": len(self.results),
            "mean": opened.tolist() if self.max_weight == 1.0 else [],
            "correct": bool(np.allclose(opened, VALUE, atol=TOLERANCE)),
        }


def _per_call(work: Callable[[], Any], times: int) -> float:
    begin = process_time()
    for _ in range(times):
        work()
    return (process_time() - begin) / times


def _carry_out(order: dict[str, Any]) -> Any:
    match order["do"]:
        case "round":
            ring = Ring(order["n"], order["words"], order["dropped"])
            return ring.play(order["shares"], order["threshold"])
        case "sum":
            vectors = order["vectors"]
            return Ring(len(vectors), len(vectors[0]), order["dropped"], vectors).play(
                order["shares"], order["threshold"]
            )
        case "mask":
            seed = os.urandom(32)
            return _per_call(lambda: pseudo_rand_gen(seed, 1 << 32, [(order["words"],)]), order["times"])
        case "agree":
            private = ec.generate_private_key(ec.SECP384R1())
            public = ec.generate_private_key(ec.SECP384R1()).public_key()
            return _per_call(lambda: generate_shared_key(private, public), order["times"])
        case "share":
            secret = os.urandom(order["size"])
            return _per_call(lambda: create_shares(secret, order["threshold"], order["shares"]), order["times"])
        case "combine":
            secret = os.urandom(order["size"])
            shares = create_shares(secret, order["threshold"], order["shares"])[: order["threshold"]]
            return _per_call(lambda: combine_shares(shares), order["times"])
    raise ValueError(order["do"])


def main() -> None:
    """Serve orders until the input ends; the answers own standard output, whatever else is printed goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    logging.disable(logging.CRITICAL)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    for line in sys.stdin:
        print(json.dumps(_carry_out(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()

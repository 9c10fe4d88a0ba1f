"""Peers that lie and flood on the port where nodes speak to each other: a published answer, and a node that goes on."""

import collections
import os
import unittest

import grpc_wire
from cluster import ClusterTest, id_of, peers
from grpc_wire import RST_STREAM, Wire, field, frame, message, varint
from support import main, wait_for

WORK, MEMBERSHIP = "/neuroshard.NeuroShard/", "/neuroshard.Membership/"
METHODS = [WORK + name for name in ("Ping", "Forward", "Backward", "ExchangeGradient", "GetCheckpoint", "PutCheckpoint")] + \
          [MEMBERSHIP + name for name in ("Announce", "Heartbeat", "FindPeers", "GetLayerMap", "Publish")]
HEADER = field(1, field(1, b"r" * 20) + varint(6 << 3) + varint(2000))
MOST = 2**32 - 1
INVALID_ARGUMENT, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAUTHENTICATED = 3, 4, 7, 8, 12, 16


class Hostile(ClusterTest):
    def setUp(self):
        super().setUp()
        self.one, self.other = self.start_nodes(2, **{"training.enabled": False})
        self.one.wait_up()
        self.pem = grpc_wire.certificate(self.directory, "stranger")

    def wire(self):
        return Wire(self.one.port + 1000, self.pem)

    def files(self):
        return len(os.listdir(f"/proc/{self.one.process.pid}/fd"))

    def goes_on(self, before_kb, most_mb):
        """It answers strangers, still knows the other node, serves its clients, and has not grown by more than that."""
        with self.wire() as wire:
            self.assertEqual(wire.call(MEMBERSHIP + "Announce", HEADER)[0], INVALID_ARGUMENT)
        other = id_of(self.other)
        wait_for(lambda: peers(self.one).get(other, {}).get("state") == "online", 20, "the other node", self.one)
        answer = self.one.post("/api/v1/inference", {"prompt": "a", "max_tokens": 2})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertLess(self.one.memory_kb(), before_kb + (most_mb << 10))

    def test_another_protocol_version_another_network_and_unknown_methods_are_refused_as_published(self):
        with self.wire() as wire:
            for version in ("0", "2", "1 ", "01x", "", "1" * 4000, None):
                status, headers = wire.call(WORK + "Ping", HEADER, ns_protocol=version)
                self.assertEqual((status, headers.get("ns-reason")), (UNIMPLEMENTED, "protocol"), version)
            self.assertEqual(wire.call(WORK + "Ping", HEADER, ns_network="elsewhere")[0], PERMISSION_DENIED)
            for path in (WORK + "Nothing", "/Other/Ping", "/", "x" * 3000):
                self.assertEqual(wire.call(path, HEADER)[0], UNIMPLEMENTED, path[:40])
            for method in METHODS:
                self.assertIn(wire.call(method, b"")[0], (INVALID_ARGUMENT, UNAUTHENTICATED, UNIMPLEMENTED), method)
        self.goes_on(self.one.memory_kb(), 64)

    def test_lengths_of_4_gib_cost_nothing(self):
        before = self.one.memory_kb()
        with self.wire() as wire:
            for method in METHODS:
                for payload in (field(1, b"abc", MOST), field(1, b"abc", 2**63), HEADER + field(2, field(1, b"a", MOST)),
                                HEADER + field(4, b"", MOST), HEADER + field(5, field(3, b"a", MOST)), b"\xff" * 100):
                    status, _ = wire.call(method, payload)
                    self.assertIn(status, (INVALID_ARGUMENT, UNAUTHENTICATED, UNIMPLEMENTED), (method, payload[:40]))
            # A message that says it is 4 GiB: it is waited for as long as the call may take.
            for method in METHODS:
                stream = wire.open(method, grpc_timeout="500m")
                wire.data(stream, message(b"abc", MOST), end=False)
                status, _ = wire.end_of(stream)
                self.assertIn(status, (DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAUTHENTICATED, UNIMPLEMENTED), method)
        self.goes_on(before, 64)

    def test_floods_of_connections_calls_and_cancelled_calls_end_with_them(self):
        before, files = self.one.memory_kb(), self.files()
        wires = [self.wire() for _ in range(200)]
        self.assertIn(wires[-1].call(WORK + "Ping", HEADER)[0], (UNAUTHENTICATED, RESOURCE_EXHAUSTED))
        for wire in wires:
            wire.socket.close()
        wait_for(lambda: self.files() <= files + 20, 60, "the connections to be gone", self.one)
        seen = collections.Counter()
        with self.wire() as wire:
            for _ in range(20):  # 64 streams at once are allowed
                streams = [wire.open(WORK + "Ping") for _ in range(60)]
                for stream in streams:
                    wire.data(stream, message(HEADER))
                seen.update(wire.end_of(stream)[0] for stream in streams)
        self.assertEqual(set(seen) - {UNAUTHENTICATED, RESOURCE_EXHAUSTED}, set(), seen)
        with self.wire() as wire:
            try:
                for _ in range(2000):
                    stream = wire.open(WORK + "Ping")
                    wire.send(frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big")))
            except OSError:  # it may close what only floods
                pass
        self.goes_on(before, 400)
        wait_for(lambda: self.files() <= files + 20, 60, "the connections to be gone", self.one)


if __name__ == "__main__":
    main()

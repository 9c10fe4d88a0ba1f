"""How nodes find each other without a seed that answers, and how the ghosts of others go."""

import json
import os
import random
import signal
import socket
import stat
import time
import unittest

from support import NodeTest, main, wait_for


def free_udp_port():
    while True:
        port = random.randrange(10_000, 31_000)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def grpc_address(node):
    return f"127.0.0.1:{node.port + 1000}"


def peers(node):
    return {p["id"]: p for p in node.get("/api/v1/peers").json()["peers"]}


def id_of(node):
    return node.get("/api/v1/status").json()["node_id"]


def state(node, other):
    return peers(node).get(other, {}).get("state")


class Discovery(NodeTest):
    def make(self, *seeds, corpus=True, **settings):
        name = f"node-{len(self.nodes)}"
        return self.node(name, corpus=corpus, settings={"grpc_host": "127.0.0.1", "training.enabled": False,
                                                        "seed_peers": list(seeds), **settings})

    def stored(self, node):
        path = os.path.join(node.data_dir, "peers.json")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        with open(path, encoding="utf-8") as file:
            return {p["node_id"]: p["address"] for p in json.load(file)["peers"]}

    def wait_met(self, a, b, seconds=20):
        for one, other in ((a, id_of(b)), (b, id_of(a))):
            wait_for(lambda one=one, other=other: state(one, other) == "online", seconds, f"{other} to be met", one)

    def test_a_node_whose_seed_is_dead_finds_the_peers_of_its_earlier_life(self):
        seed = self.make().start()
        first = self.make(grpc_address(seed)).start()
        second = self.make(grpc_address(seed)).start()
        self.wait_met(first, second)
        seed_id, first_id, second_id = id_of(seed), id_of(first), id_of(second)
        # Of a node that is killed the table was written while it ran.
        wait_for(lambda: os.path.exists(os.path.join(first.data_dir, "peers.json")) and
                 second_id in self.stored(first), 40, "the table to be written", first)
        first.kill()
        self.assertEqual(second.terminate(), 0, second.text())
        self.assertEqual(set(self.stored(second)), {seed_id, first_id})
        self.assertEqual(self.stored(second)[first_id], grpc_address(first))
        seed.kill()
        first.restart()
        # What is in the file is a stranger's word, even where it was this node's own.
        path = os.path.join(second.data_dir, "peers.json")
        with open(path, encoding="utf-8") as file:
            table = json.load(file)
        table["peers"] += [7, {"node_id": "../../etc", "address": "x"},
                           {"node_id": "f" * 32, "address": "127.0.0.1:1", "seen_unix_us": 2**62}]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(table, file)
        second.restart()
        self.wait_met(first, second)
        self.assertEqual(second.log().count("peers-skipped"), 1)
        self.assertIn("entries=2", second.log())

    def test_a_peer_table_of_garbage_is_no_reason_not_to_start(self):
        node = self.make().start()
        self.assertEqual(node.terminate(), 0, node.text())
        path = os.path.join(node.data_dir, "peers.json")
        for content in (b"", b"[" * 100_000, b"\0" * 300_000, os.urandom(1000)):
            with open(path, "wb") as file:
                file.write(content)
            node.restart()
            self.assertIn("peers-not-read", node.log())
            self.assertEqual(node.terminate(), 0, node.text())
            self.assertEqual(self.stored(node), {})

    def test_two_nodes_meet_through_the_dht_alone(self):
        port = free_udp_port()
        first = self.make(**{"dht.enabled": True, "dht.port": port}).start()
        # Nobody answers gRPC at this address; the DHT's port is 1000 above it.
        second = self.make(f"127.0.0.1:{port - 1000}", **{"dht.enabled": True, "dht.port": free_udp_port()}).start()
        began = time.monotonic()
        self.wait_met(first, second)
        print(f"met {time.monotonic() - began:.2f} s after both listened")
        self.assertIn("from=dht", first.log() + second.log())
        other = id_of(second)
        began = time.monotonic()
        self.assertEqual(second.terminate(), 0, second.text())
        wait_for(lambda: other not in peers(first), 10, "the goodbye", first)
        second.restart()
        self.wait_met(first, second)

    def test_a_dht_that_cannot_be_had_is_done_without(self):
        node = self.make(**{"dht.enabled": True, "dht.port": free_udp_port()})
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", node.settings["dht.port"]))
            node.start()
            self.assertIn("warning dht: off", node.log())
            other = self.make(grpc_address(node)).start()
            self.wait_met(node, other)
            self.assertNotIn(" dht: ", other.log())
            self.assertEqual(node.terminate(), 0, node.text())
        node.restart()
        # Garbage at the port costs nobody anything.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for size in (0, 1, 100, 1400, 9000):
                for _ in range(50):
                    stranger.sendto(os.urandom(size), ("127.0.0.1", node.settings["dht.port"]))
        self.wait_met(node, other)
        self.assertEqual(node.terminate(), 0, node.text())

    def test_a_tracker_makes_nodes_known_to_each_other_and_holds_nothing(self):
        tracker = self.make(corpus=False, **{"tracker_mode": True, "training.enabled": True}).start()
        first = self.make(tracker=grpc_address(tracker)).start()
        second = self.make(tracker=grpc_address(tracker)).start()
        self.wait_met(first, second)
        self.wait_met(first, tracker)
        tracker.wait_status("running")
        self.assertTrue(tracker.get("/api/v1/health").json()["healthy"], tracker.get("/api/v1/health").body)
        layers = tracker.get("/api/v1/layers").json()
        self.assertEqual((layers["layers"], layers["my_layer_count"]), ([], 0))
        self.assertFalse(tracker.status()["training"]["enabled"])
        self.assertEqual(tracker.checkpoints(), [])
        answer = tracker.post("/api/v1/inference", {"prompt": "a", "max_tokens": 1})
        self.assertEqual((answer.status, answer.code), (500, "INTERNAL_ERROR"), answer.body)
        own = id_of(tracker)
        for node in (first, second):
            node.wait_up()
            self.assertEqual(peers(node)[own]["layers"], [])
        self.assertEqual(first.post("/api/v1/inference", {"prompt": "a", "max_tokens": 1, "temperature": 0}).status, 200)
        self.assertEqual(tracker.terminate(), 0, tracker.text())
        wait_for(lambda: own not in peers(first), 10, "the tracker's goodbye", first)
        self.assertEqual(state(first, id_of(second)), "online")

    def test_the_next_life_of_a_killed_node_takes_the_place_of_its_ghost_within_seconds(self):
        first = self.make().start()
        second = self.make(grpc_address(first)).start()
        self.wait_met(first, second)
        ghost = id_of(second)
        for _ in range(3):
            second.kill()
            second.restart()
            self.assertEqual(id_of(second), ghost)
            self.wait_met(first, second, 10)
            self.assertEqual(len(peers(first)), 1)
        second.wait_up()
        self.assertEqual(second.post("/api/v1/inference", {"prompt": "a", "max_tokens": 1, "temperature": 0}).status, 200)

    def test_a_node_that_stands_still_past_its_lease_is_gone_and_comes_back_when_it_goes_on(self):
        first = self.make().start()
        second = self.make(grpc_address(first)).start()
        self.wait_met(first, second)
        first.wait_up()
        ghost = id_of(second)
        second.signal(signal.SIGSTOP)
        try:
            wait_for(lambda: state(first, ghost) == "stale", 25, "its silence", first)
            wait_for(lambda: ghost not in peers(first), 75, "its end", first)
            # It stands in nobody's way: all is served without it.
            answer = first.post("/api/v1/inference", {"prompt": "a", "max_tokens": 2, "temperature": 0})
            self.assertEqual(answer.status, 200, answer.body)
        finally:
            second.signal(signal.SIGCONT)
        self.wait_met(first, second, 30)


if __name__ == "__main__":
    main()

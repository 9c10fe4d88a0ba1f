"""A node that joins a network of others takes over what all of them have in common."""

import os
import random
import time
import unittest

from support import NodeTest, main, wait_for

OPEN = {"grpc_host": "127.0.0.1", "dht.enabled": False, "model.dtype": "f32", "cpu_threads": 1,
        "economics.steps_per_minute": 1000000}


def grpc_address(node):
    return f"127.0.0.1:{node.port + 1000}"


class Joining(NodeTest):
    def config(self, node):
        return node.get("/api/v1/config").json()["training"]

    def holds(self, node):
        return node.get("/api/v1/layers").json()["layers"]

    def test_the_architecture_and_the_parameters_of_the_network_are_taken_over(self):
        first = self.node("first", settings={"grpc_host": "127.0.0.1", "cpu_threads": 1, "training.diloco_steps": 77,
                                             "training.batch_size": 3, "training.learning_rate": 0.004}).start()
        first.wait_up()
        second = self.node("second", tiny=False, settings={**OPEN, "seed_peers": [grpc_address(first)]}).start()
        pid = second.process.pid
        wait_for(lambda: "adopts-architecture" in second.log(), 40, "the network's architecture", second)
        wait_for(lambda: second.log().count(" starting version=") == 2, 40, "the second start", second)
        second.wait_up()
        self.assertEqual(second.process.pid, pid)
        self.assertIsNone(second.process.poll())
        wait_for(lambda: self.config(second)["diloco_steps"] == 77, 30, "the network's parameters", second)
        self.assertEqual(self.config(second), {"enabled": True, "batch_size": 3, "learning_rate": 0.004, "diloco_steps": 77})
        wait_for(lambda: self.holds(second), 30, "layers", second)
        self.assertEqual({(layer["type"], layer["index"]) for layer in self.holds(second)},
                         {("embedding", 0), ("transformer", 0), ("transformer", 1), ("lm_head", 2)})
        # What the network has in common is nobody's to change, once a node knows that it shares its model.
        for node in (first, second):
            wait_for(lambda: node.request("PATCH", "/api/v1/config", {"training": {"diloco_steps": 77}}).status == 403, 30,
                     "the map of both", node)
        for name, value in (("diloco_steps", 10), ("learning_rate", 0.5), ("batch_size", 2)):
            for node in (first, second):
                refused = node.request("PATCH", "/api/v1/config", {"training": {name: value}})
                self.assertEqual((refused.status, refused.code), (403, "FORBIDDEN"), refused.body)
                self.assertEqual(refused.details["field"], f"training.{name}")
        # The next start knows at once.
        self.assertEqual(second.terminate(), 0, second.text())
        second.restart().wait_up()
        self.assertEqual(second.log().count("adopts-architecture"), 1)

    def test_a_node_with_another_corpus_reads_it_with_the_networks_tokenizer(self):
        first = self.node("first", settings={"grpc_host": "127.0.0.1", "cpu_threads": 1}).start()
        first.wait_up()
        time.sleep(5)  # its map tells of the tokenizer a tick later, and nothing outside shows when
        chooser = random.Random(7)
        words = ["".join(chooser.choice("qzxjkvwyfg") for _ in range(6)) for _ in range(40)]
        corpus = os.path.join(self.directory, "other.txt")
        with open(corpus, "w", encoding="utf-8") as out:
            for _ in range(300):
                out.write(" ".join(chooser.choice(words) for _ in range(40)) + ".\n\n")
        second = self.node("second", settings={"grpc_host": "127.0.0.1", "cpu_threads": 1, "data.corpus": corpus,
                                               "seed_peers": [grpc_address(first)]}).start()
        wait_for(lambda: "adopts-tokenizer" in second.log(), 60, "the network's tokenizer", second)
        wait_for(lambda: second.log().count(" starting version=") == 2, 40, "the second start", second)
        second.wait_up()
        with open(os.path.join(first.data_dir, "tokenizer.json"), encoding="utf-8") as file:
            theirs = file.read()
        with open(os.path.join(second.data_dir, "tokenizer.json"), encoding="utf-8") as file:
            self.assertEqual(file.read(), theirs)
        wait_for(lambda: second.step() > 0, 40, "training with it", second)
        self.assertEqual(second.log().count("other-tokenizer"), 1)

    def test_a_node_with_a_shape_of_its_own_stays_out(self):
        first = self.node("first", settings={"grpc_host": "127.0.0.1", "cpu_threads": 1}).start()
        first.wait_up()
        second = self.node("second", settings={**OPEN, "model.num_layers": 3, "seed_peers": [grpc_address(first)]}).start()
        wait_for(lambda: "stays-out" in second.log(), 40, "a word of why", second)
        self.assertIn("model.preset is fixed here", second.log())
        wait_for(lambda: second.step() > 0, 40, "its own training", second)
        self.assertEqual(len(self.holds(second)), 5)


if __name__ == "__main__":
    main()

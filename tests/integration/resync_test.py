"""A node that comes to a model in training, or falls out of step with it, takes the weights of the others."""

import re
import signal
import unittest

from support import NodeTest, main, wait_for


class Resync(NodeTest):
    def join(self, *seeds, **settings):
        node = self.node(f"node-{len(self.nodes)}", settings={
            "grpc_host": "127.0.0.1", "cpu_threads": 1, "training.diloco_steps": 2000,
            "seed_peers": [f"127.0.0.1:{seed.port + 1000}" for seed in seeds], **settings})
        return node.start()

    def outer(self, node):
        return node.value("model", "version")

    def agree(self, *nodes):
        """The outer step that all are at with the same weights; 0: they are not."""
        told = [(self.outer(node), node.get("/api/v1/training/global").json()["local"]["model_hash"]) for node in nodes]
        return told[0][0] if len(set(told)) == 1 and told[0][1] else 0

    def taken(self, node):
        return [int(outer) for outer in re.findall(r"weights-taken outer=(\d+)", node.log())]

    def test_a_node_that_joins_late_and_one_that_was_stopped_come_to_the_weights_of_the_others(self):
        first = self.join()
        second = self.join(first)
        wait_for(lambda: self.agree(first, second) >= 1, 60, "an outer step of both", first)

        third = self.join(first)
        wait_for(lambda: self.agree(first, second, third), 60, "equal weights on all three", third)
        self.assertTrue(self.taken(third), third.text())
        self.assertNotIn("outer-step outer=1 ", third.log())  # none of its own
        wait_for(lambda: "members=3" in third.log(), 60, "a round in which it takes part", third)
        wait_for(lambda: self.agree(first, second, third), 60, "equal weights after it", third)

        # One that trains would be waited for a minute; so this one only follows.
        third.request("PATCH", "/api/v1/config", {"training": {"enabled": False}})
        third.wait_status("running")
        at = self.outer(third)
        wait_for(lambda: self.outer(third) > at + 1, 60, "rounds that it only follows", third)
        before = len(self.taken(third))
        third.signal(signal.SIGSTOP)
        at = self.outer(first)
        wait_for(lambda: self.outer(first) >= at + 3, 90, "rounds without it", first)
        third.signal(signal.SIGCONT)
        wait_for(lambda: self.agree(first, second, third) > at, 60, "equal weights again", third)
        self.assertGreater(len(self.taken(third)), before, third.text())

    def test_a_node_restarted_in_the_middle_of_a_round_stays_in_it(self):
        first = self.join(**{"training.diloco_steps": 5000})
        second = self.join(first, **{"training.diloco_steps": 5000})
        wait_for(lambda: self.agree(first, second) >= 1, 60, "an outer step of both", first)
        at = self.outer(second)
        second.wait_step(at * 5000 + 300)
        self.assertEqual(second.terminate(), 0, second.text())
        second.restart().wait_up()
        self.assertEqual(self.outer(second), at)
        wait_for(lambda: self.agree(first, second) > at, 60, "the end of the round", second)
        self.assertIn(f"outer-step unit=layer.0 round={at + 1} contributions=2", second.log())
        self.assertFalse(self.taken(second), second.text())


if __name__ == "__main__":
    main()

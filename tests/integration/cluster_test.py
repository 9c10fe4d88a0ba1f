"""Nodes that hold one model together: two that share out its layers, three that hold all of it."""

import unittest

from support import NodeTest, main, wait_for


def grpc_address(node):
    return f"127.0.0.1:{node.port + 1000}"


class Cluster(NodeTest):
    def start_nodes(self, count, **settings):
        """All at once, so that they share the first round."""
        nodes = []
        for i in range(count):
            seeds = [grpc_address(nodes[0])] if nodes else []
            nodes.append(self.node(f"node-{i}", settings={"grpc_host": "127.0.0.1", "cpu_threads": 1, "seed_peers": seeds,
                                                          **settings}))
        for node in nodes:
            node.start(ready=False)
        for node in nodes:
            node.wait_listening()
        return nodes

    def outer(self, node):
        return node.value("model", "version")

    def hash_of(self, node):
        return node.get("/api/v1/training/global").json()["local"]["model_hash"]

    def held(self, node):
        return {(layer["type"], layer["index"]) for layer in node.get("/api/v1/layers").json()["layers"]}

    def test_two_nodes_share_out_the_layers_train_them_and_lose_one_another(self):
        nodes = self.start_nodes(2, **{"peers.max_layers": 1, "training.diloco_steps": 40, "training.microbatches": 2})
        wait_for(lambda: all(self.outer(node) >= 2 for node in nodes), 60, "two outer steps on both", nodes[0])
        self.assertEqual(self.held(nodes[0]) | self.held(nodes[1]),
                         {("embedding", 0), ("transformer", 0), ("transformer", 1), ("lm_head", 2)})
        self.assertFalse(self.held(nodes[0]) & self.held(nodes[1]))
        driver, other = sorted(nodes, key=lambda node: ("embedding", 0) not in self.held(node))
        losses = driver.losses()
        self.assertLess(losses[max(losses)][-1], losses[min(losses)][0] - 0.3)
        # The other half dies: training waits, and goes on when it is back.
        other.kill()
        wait_for(lambda: "layer." in driver.log().split("waits why=")[-1][:60], 60, "a word of what is missing", driver)
        before = self.outer(driver)
        other.restart().wait_up()
        wait_for(lambda: self.outer(driver) > before + 1, 90, "further outer steps", driver)

    def test_three_nodes_with_the_whole_model_end_each_round_with_the_same_weights(self):
        # A round of ten seconds on a quiet machine: long enough to meet in.
        nodes = self.start_nodes(3, **{"training.diloco_steps": 4000})
        wait_for(lambda: all(self.outer(node) >= 2 for node in nodes), 120, "two outer steps", nodes[0])

        def agree():
            versions = {self.outer(node) for node in nodes}
            return len(versions) == 1 and len({self.hash_of(node) for node in nodes}) == 1 and self.hash_of(nodes[0])

        wait_for(agree, 60, "equal hashes", nodes[0])
        wait_for(lambda: "members=3" in nodes[0].log(), 60, "a round of three", nodes[0])


if __name__ == "__main__":
    main()

"""A network that falls in two halves, which train apart, and is one again. Needs root and network namespaces."""

import os
import subprocess
import sys

from cluster import ClusterTest, hash_of, id_of, outer, peers
from support import main, wait_for

NODES = 4
IN_SPACE = "NEUROSHARD_TEST_SPACE"  # set in the namespace that this file makes for itself


def sh(*words):
    subprocess.run(words, check=True, capture_output=True, text=True)


class Partition(ClusterTest):
    """Each node in a network namespace with two cards: one to the other nodes, one on which the test asks it."""

    def setUp(self):
        super().setUp()
        sh("ip", "link", "set", "lo", "up")
        for bridge in ("half0", "half1", "watch"):
            sh("ip", "link", "add", bridge, "type", "bridge")
            sh("ip", "link", "set", bridge, "up")
        sh("ip", "addr", "add", "10.78.0.1/24", "dev", "watch")
        sh("ip", "link", "add", "join0", "type", "veth", "peer", "name", "join1")
        for half in (0, 1):
            sh("ip", "link", "set", f"join{half}", "master", f"half{half}", "up")
        for i in range(NODES):
            inside = self.space()
            for card, bridge, address in (("eth0", f"half{i * 2 // NODES}", f"10.77.0.{i + 2}"), ("eth1", "watch", f"10.78.0.{i + 2}")):
                sh("ip", "link", "add", f"{card}-{i}", "type", "veth", "peer", "name", card, "netns", inside[2])
                sh("ip", "link", "set", f"{card}-{i}", "master", bridge, "up")
                sh(*inside, "ip", "addr", "add", f"{address}/24", "dev", card)
                sh(*inside, "ip", "link", "set", card, "up")
            sh(*inside, "ip", "link", "set", "lo", "up")
            seeds = [f"10.77.0.2:{self.nodes[0].port + 1000}"] if i else []
            node = self.add_node(*seeds, **{"grpc_host": f"10.77.0.{i + 2}", "http_host": f"10.78.0.{i + 2}",
                                            "api.allow_plain_http": True, "training.diloco_steps": 2000})
            node.host, node.inside = f"10.78.0.{i + 2}", inside

    def space(self):
        """A namespace that lasts as long as a process that does nothing; the words that run a command in it."""
        holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo && exec sleep infinity"], stdout=subprocess.PIPE)
        for last in (holder.stdout.close, holder.wait, holder.kill):
            self.addCleanup(last)
        holder.stdout.readline()
        return ["nsenter", "-t", str(holder.pid), "-n"]

    def join(self, whole):
        for half in (0, 1):
            sh("ip", "link", "set", f"join{half}", "up" if whole else "down")

    def know(self, nodes):
        """Whether each of them sees the others online, and nobody else."""
        ids = {id_of(node) for node in nodes}
        return all({peer for peer, what in peers(node).items() if what["state"] == "online"} == ids - {id_of(node)} for node in nodes)

    def one_keeper(self, nodes):
        """Whether they go by the map of the same keeper: its versions are logged where something in them is new."""
        return len({node.log().split(" layer-map version=")[-1].split()[1] for node in nodes}) == 1

    def agree(self, nodes):
        return len({(outer(node), hash_of(node)) for node in nodes}) == 1

    def test_two_halves_train_apart_and_are_one_model_again(self):
        nodes, halves = self.nodes, (self.nodes[:NODES // 2], self.nodes[NODES // 2:])
        for node in nodes:
            node.start(ready=False)
        for node in nodes:
            node.wait_listening()
        wait_for(lambda: self.know(nodes) and min(map(outer, nodes)) >= 1 and self.agree(nodes), 120, "an outer step of all", nodes[0])
        self.join(False)
        apart = max(map(outer, nodes))
        for half in halves:
            wait_for(lambda half=half: self.know(half) and self.one_keeper(half), 120, "the halves to know only themselves", half[0])
        for half in halves:
            wait_for(lambda half=half: min(map(outer, half)) >= apart + 2 and self.agree(half), 200, "outer steps of one half", half[0])
        self.assertFalse(self.agree(nodes))
        self.join(True)
        wait_for(lambda: self.know(nodes), 120, "all to know each other", nodes[0])
        wait_for(lambda: self.one_keeper(nodes), 120, "one keeper", nodes[0])
        wait_for(lambda: self.agree(nodes), 200, "the same weights on all", nodes[0])
        healed = max(map(outer, nodes))
        wait_for(lambda: min(map(outer, nodes)) > healed and self.agree(nodes), 200, "a further outer step of all", nodes[0])


if __name__ == "__main__":
    if IN_SPACE not in os.environ:
        if os.geteuid() != 0 or subprocess.run(["unshare", "-n", "ip", "link", "add", "type", "bridge"], check=False,
                                               capture_output=True).returncode != 0:
            print("skipped: needs root, network namespaces and ip (package iproute2)")
            sys.exit(0)
        os.execvpe("unshare", ["unshare", "-n", sys.executable, *sys.argv], {**os.environ, IN_SPACE: "1"})
    main()

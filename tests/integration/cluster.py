"""Several real nodes of one model on this machine, and what their tests ask of them."""

import os
import secrets

from support import NodeTest, wait_for, write_corpus


def grpc_address(node):
    return f"127.0.0.1:{node.port + 1000}"


def id_of(node):
    return node.status()["node_id"]


def peers(node):
    return {p["id"]: p for p in node.get("/api/v1/peers").json()["peers"]}


def outer(node):
    """Outer steps that the weights it serves have behind them."""
    return node.value("model", "version")


def hash_of(node):
    return node.get("/api/v1/training/global").json()["local"]["model_hash"]


def held(node):
    return {(layer["type"], layer["index"]) for layer in node.get("/api/v1/layers").json()["layers"]
            if layer["status"] == "active"}


def processor_ns(node):
    """Time on a processor that the threads of a node have had."""
    tasks = f"/proc/{node.process.pid}/task"
    total = 0
    for task in os.listdir(tasks):
        try:
            with open(os.path.join(tasks, task, "schedstat"), encoding="ascii") as file:
                total += int(file.read().split()[0])
        except OSError:  # a thread that has ended
            pass
    return total


class ClusterTest(NodeTest):
    def one_wallet(self):
        """Settings by which nodes share a wallet: each needs an `instance` of its own besides."""
        path = os.path.join(self.directory, "token")
        if not os.path.exists(path):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
        return {"token_file": path}

    def one_text(self):
        """A corpus of one document, so that what has learned from it goes on to write without an end."""
        path = os.path.join(self.directory, "corpus.txt")
        write_corpus(path)
        with open(path, encoding="utf-8") as file:
            text = file.read().replace("\n\n", " ")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return {"data.corpus": path}

    def add_node(self, *seeds, **settings):
        return self.node(f"node-{len(self.nodes)}", settings={"grpc_host": "127.0.0.1", "cpu_threads": 1,
                                                              "seed_peers": list(seeds), "instance": len(self.nodes), **settings})

    def start_nodes(self, count, own=(), **settings):
        """All at once, so that they share the first round. `own`: settings of each node besides."""
        nodes = []
        for i in range(count):
            more = own[i] if own else {}
            nodes.append(self.add_node(*(grpc_address(node) for node in nodes[:1]), **settings, **more))
        for node in nodes:
            node.start(ready=False)
        for node in nodes:
            node.wait_listening()
        return nodes

    def wait_outer(self, nodes, steps, seconds=60):
        wait_for(lambda: all(outer(node) >= steps for node in nodes), seconds, f"{steps} outer steps on all", nodes[0])

    def pause_training(self, nodes):
        """Until all stand at the same outer step, and take none any more."""
        for node in nodes:
            answer = node.request("PATCH", "/api/v1/config", {"training": {"enabled": False}})
            self.assertEqual(answer.status, 200, answer.body)
        for node in nodes:
            node.wait_status("running")

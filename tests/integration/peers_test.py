"""Nodes that find each other: two processes and one seed address, mutual TLS between them."""

import os
import socket
import ssl
import subprocess
import unittest

from support import NodeTest, free_port, main, wait_for


def grpc_address(node):
    return f"127.0.0.1:{node.port + 1000}"


class Peers(NodeTest):
    def peers(self, node):
        return {p["id"]: p for p in node.get("/api/v1/peers").json()["peers"]}

    def id_of(self, node):
        return node.get("/api/v1/status").json()["node_id"]

    def certificate(self, node):
        with open(os.path.join(node.data_dir, "tls", "node.crt"), encoding="ascii") as file:
            return file.read()

    def start_node(self, *seeds, **settings):
        return self.node(f"node-{len(self.nodes)}", settings={"grpc_host": "127.0.0.1", "training.enabled": False, "seed_peers": list(seeds),
                                   **settings}).start()

    def test_two_nodes_and_a_third_find_each_other_and_a_goodbye_is_heard(self):
        first = self.start_node()
        second = self.start_node(grpc_address(first))
        third = self.start_node(grpc_address(first))
        nodes = {self.id_of(node): node for node in (first, second, third)}
        self.assertEqual(len(nodes), 3)
        for own, node in nodes.items():
            others = set(nodes) - {own}
            wait_for(lambda: set(self.peers(node)) == others and
                     all(p["state"] == "online" for p in self.peers(node).values()), 20, "both others", node)
            for other, peer in self.peers(node).items():
                self.assertEqual(peer["address"], grpc_address(nodes[other]))
                self.assertIsNotNone(peer["connected_since"])
            self.assertEqual(node.get("/api/v1/network").json()["nodes"]["total"], 3)
        gone = self.id_of(second)
        self.assertEqual(second.terminate(), 0, second.text())
        wait_for(lambda: gone not in self.peers(first) and gone not in self.peers(third), 10, "the goodbye", first)
        # Its certificate is its own for good: the same node comes back.
        certificate = self.certificate(second)
        second.restart().wait_up()
        wait_for(lambda: self.peers(first).get(gone, {}).get("state") == "online", 20, "its return", first)
        self.assertEqual(self.certificate(second), certificate)

    def test_a_killed_node_is_stale_and_its_next_life_takes_its_place(self):
        first = self.start_node()
        second = self.start_node(grpc_address(first))
        other = self.id_of(second)
        wait_for(lambda: self.peers(first).get(other, {}).get("state") == "online", 20, "the other", first)
        second.kill()
        wait_for(lambda: self.peers(first).get(other, {}).get("state") == "stale", 30, "its silence", first)
        second.restart().wait_up()
        wait_for(lambda: self.peers(first).get(other, {}).get("state") == "online", 20, "its return", first)

    def test_the_port_speaks_tls_1_3_with_certificates_alone(self):
        node = self.start_node()
        key, certificate = (os.path.join(self.directory, name) for name in ("stranger.key", "stranger.crt"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                        "-subj", "/CN=stranger", "-days", "1"], check=True, capture_output=True)

        def shake(highest=None, with_certificate=True):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            if highest:
                context.maximum_version = highest
            if with_certificate:
                context.load_cert_chain(certificate, key)
            with socket.create_connection(("127.0.0.1", node.port + 1000), timeout=20) as raw:
                with context.wrap_socket(raw) as tls:
                    tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                    if not tls.recv(9):  # with TLS 1.3 the refusal of a certificate comes with the first read
                        raise ConnectionResetError("closed")
                    return tls.version()

        self.assertEqual(shake(), "TLSv1.3")
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            shake(highest=ssl.TLSVersion.TLSv1_2)
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            shake(with_certificate=False)
        # Garbage costs nobody anything.
        with socket.create_connection(("127.0.0.1", node.port + 1000), timeout=20) as raw:
            raw.sendall(os.urandom(4096))
        self.assertEqual(node.get("/api/v1/status").status, 200)

    def test_a_port_of_peers_in_use_and_a_broken_certificate_end_the_start(self):
        with socket.socket() as taken:
            node = self.node(settings={"grpc_host": "127.0.0.1", "training.enabled": False})
            taken.bind(("127.0.0.1", node.port + 1000))
            taken.listen()
            node.start(ready=False)
            self.assertEqual(node.wait_end(), 2, node.text())
            self.assertIn(f"cannot listen on 127.0.0.1:{node.port + 1000}", node.text())
        with open(os.path.join(node.data_dir, "tls", "node.key"), "w", encoding="ascii") as file:
            file.write("garbage")
        node.port = free_port()
        node.start(ready=False)
        self.assertEqual(node.wait_end(), 3, node.text())
        self.assertIn("node.key", node.text())

    def test_another_network_is_not_joined(self):
        first = self.start_node()
        second = self.start_node(grpc_address(first), network="elsewhere")
        wait_for(lambda: "seed-not-joined" in second.log(), 20, "the refusal", second)
        self.assertIn("another network", second.log())
        self.assertEqual(self.peers(first), {})


if __name__ == "__main__":
    main()

"""What the tests of the HTTP contract share: exact reading of JSON, raw bytes, a node with a balance."""

import json
import socket
import time

import support

# Rewards large and at once, so that there is something to send and to stake.
RICH = {"economics.training_per_batch": "1000", "economics.max_per_proof": "1000000",
        "economics.max_per_wallet_day": "100000000", "economics.maturity_s": 1, "checkpoint.every_steps": 20}
IDLE = {"training.enabled": False}
STRANGER = "0x" + "ab" * 20
AMOUNT = r"-?(0|[1-9][0-9]*)\.([0-9]*[1-9]|0)"
TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


class Text(str):
    """A JSON number as it was written."""


def exact(body):
    """JSON with numbers as their text, so that 1 and 1.0 differ."""
    return json.loads(body, parse_float=Text, parse_int=lambda t: ("int", int(t)))


class Contract(support.NodeTest):
    def talk(self, node, data, seconds=5, half=False):
        """Raw bytes to the node, and what comes back until it closes or falls silent for a moment."""
        with socket.create_connection(("127.0.0.1", node.port), 5) as s:
            s.settimeout(seconds)
            s.sendall(data)
            if half:
                s.shutdown(socket.SHUT_WR)
            got = b""
            try:
                while part := s.recv(65536):
                    got += part
            except socket.timeout:
                pass
            return got

    def rich(self, settings=None, available=5000):
        return self.make_rich(self.node(settings={**RICH, **(settings or {})}), available)

    def make_rich(self, node, available=5000):
        """Stops training as soon as there is enough, and waits for the money."""
        node.start()
        node.wait_step(100)
        # From now on the balance moves only by what the test does; a start is one of the moments at which rewards mature.
        node.prove_all()
        self.assertGreaterEqual(node.get("/api/v1/wallet/balance").json()["balances"]["total"], available)
        node.terminate()
        time.sleep(1.1)
        node.start()
        support.wait_for(lambda: self.available(node) >= available, 20, "maturity", node)
        node.wait_status("running")
        return node

    @staticmethod
    def available(node):
        return node.get("/api/v1/wallet/balance").json()["balances"]["available"]

    def is_amount(self, value):
        self.assertIsInstance(value, Text)
        self.assertRegex(value, f"^{AMOUNT}$")

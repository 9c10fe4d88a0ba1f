"""Money under SIGKILL: a node is killed at random moments while many clients send, again and again. Every transfer that was
acknowledged is in the book, none is there twice, and the book verifies, whatever the moment was."""

import http.client
import json
import os
import random
import threading
import time
import unittest

from support import NodeTest, main
from wallet_test import FRIEND, RICH

ROUNDS = int(os.environ.get("NEUROSHARD_CRASH_ROUNDS", "20"))
CLIENTS = 16


class Client(threading.Thread):
    """Sends one transfer after the other over its own connection, each under a key of its own, until the node is gone."""

    def __init__(self, node, name, unanswered):
        super().__init__(daemon=True)
        self.node, self.name, self.unanswered = node, name, unanswered
        self.acknowledged = {}  # key: transaction id
        self.faults = []

    def run(self):
        todo = list(self.unanswered)
        self.unanswered = []
        number = 0
        token = self.node.token
        connection = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=20)
        while True:
            key = todo.pop() if todo else f"{self.name}-{number}"
            number += 1
            body = json.dumps({"to": FRIEND, "amount": "0.000001", "memo": key})
            try:
                connection.request("POST", "/api/v1/wallet/send", body, {
                    "Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": key})
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException):
                self.unanswered = [key, *todo]
                break
            if answer.status == 200:
                self.acknowledged[key] = json.loads(text)["transaction_id"]
            else:
                self.faults.append(f"{answer.status} {text}")
                self.unanswered = [key, *todo]
                break
        connection.close()


class LedgerCrash(NodeTest):
    def test_no_acknowledged_transfer_is_lost_or_made_twice_by_a_kill(self):
        seed = int(os.environ.get("NEUROSHARD_TEST_SEED", str(random.randrange(2**32))))
        print(f"NEUROSHARD_TEST_SEED={seed}", flush=True)
        moments = random.Random(seed)
        node = self.funded_node(settings=RICH)
        acknowledged, unanswered = {}, [[] for _ in range(CLIENTS)]
        for number in range(ROUNDS):
            clients = [Client(node, f"r{number}c{i}", unanswered[i]) for i in range(CLIENTS)]
            for client in clients:
                client.start()
            time.sleep(moments.uniform(0.01, 0.6))
            node.kill()
            for client in clients:
                client.join(30)
                self.assertFalse(client.is_alive())
                self.assertEqual(client.faults, [])
                acknowledged.update(client.acknowledged)
            unanswered = [client.unanswered for client in clients]
            # The book as the kill left it, log and all, before any node has touched it again.
            book = node.ledger()
            self.check(book, acknowledged)
            node.start("--no-training")
        # What was not answered is asked again under its key: executed once, whether the kill came before or after it.
        for keys in unanswered:
            for key in keys:
                answer = node.post("/api/v1/wallet/send", {"to": FRIEND, "amount": "0.000001", "memo": key},
                                   headers={"Idempotency-Key": key})
                self.assertEqual(answer.status, 200, answer.body)
                acknowledged[key] = answer.json()["transaction_id"]
        self.assertEqual(node.terminate(), 0)
        sends = self.check(node.ledger(), acknowledged)
        self.assertEqual(set(sends), set(acknowledged))
        print(f"{len(acknowledged)} transfers acknowledged over {ROUNDS} kills", flush=True)
        self.assertGreater(len(acknowledged), ROUNDS)

    def check(self, book, acknowledged):
        """Answers the transfers in the book by their key."""
        sends = {}
        for entry in book:
            if entry["kind"] == "transfer":
                self.assertNotIn(entry["memo"], sends, "a transfer was made twice")
                sends[entry["memo"]] = entry["tx_id"]
        for key, transaction in acknowledged.items():
            self.assertEqual(sends.get(key), transaction, f"{key} was acknowledged")
        return sends


if __name__ == "__main__":
    main()

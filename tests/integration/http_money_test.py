"""The published HTTP contract: sending, staking, lost responses and repeated requests."""

import concurrent.futures
import http.client
import json
import socket
import struct
import time

import support
from contract import DATE, STRANGER, TIMESTAMP, Contract, exact


class Money(Contract):
    def test_sending(self):
        node = self.rich()
        before = exact(node.get("/api/v1/wallet/balance").body)["balances"]["available"]
        answer = node.post("/api/v1/wallet/send", {"to": STRANGER.upper().replace("0X", "0x"), "amount": 250, "memo": None})
        self.assertEqual(answer.status, 200, answer.body)
        sent = exact(answer.body)
        self.assertEqual(list(sent), ["transaction_id", "from", "to", "amount", "fee", "memo", "status", "timestamp"])
        self.assertRegex(sent["transaction_id"], "^[0-9a-f]{64}$")
        self.assertEqual((sent["to"], sent["amount"], sent["fee"], sent["memo"], sent["status"]),
                         (STRANGER, "250.0", "0.25", "", "confirmed"))
        self.assertRegex(sent["timestamp"], f"^{TIMESTAMP}$")
        after = exact(node.get("/api/v1/wallet/balance").body)["balances"]["available"]
        self.assertAlmostEqual(float(before) - float(after), 250.25, 9)
        listed = exact(node.get("/api/v1/wallet/transactions?type=send").body)["transactions"][0]
        self.assertEqual((listed["id"], listed["amount"], listed["fee"], listed["memo"]), (sent["transaction_id"], "-250.0", "0.25", None))

        def refused(raw, field="amount"):
            answer = node.request("POST", "/api/v1/wallet/send", raw=('{"to":"%s","amount":%s}' % (STRANGER, raw)).encode())
            self.assertEqual((answer.status, answer.code, answer.details["field"]), (400, "INVALID_REQUEST", field), raw)
        for raw in ("0", "-1", "-0", '"-1"', '"1.0000000000000000001"', "1e-30", "1e41", '""', '"1 "', '"0x1"', "true", "null", "[]",
                    "1" * 65, '"1,5"', '"+1"', '".5"', '"1e41"'):
            refused(raw)
        own = node.get("/api/v1/wallet/balance").json()["address"]
        for to in (own, "0x" + "0" * 40, "0x12", STRANGER[2:], "", "0x" + "g" * 40):
            answer = node.post("/api/v1/wallet/send", {"to": to, "amount": 1})
            self.assertEqual((answer.status, answer.details["field"]), (400, "to"), to)
        answer = node.post("/api/v1/wallet/send", {"to": STRANGER, "amount": 1, "memo": "x" * 257})
        self.assertEqual((answer.status, answer.details["field"]), (400, "memo"))
        answer = node.request("POST", "/api/v1/wallet/send", raw=b'{"to":"%s","amount":"1e+16"}' % STRANGER.encode())
        self.assertEqual((answer.status, answer.code), (402, "INSUFFICIENT_BALANCE"))
        details = exact(answer.body)["error"]["details"]
        self.assertEqual(details, {"required": "10010000000000000.0", "available": after, "balance": after})
        for raw, printed in (("1e-05", "0.00001"), ("0.1", "0.1"), ('"0.000000000000000001"', "0.000000000000000001"),
                             ("0.10000000000000000050001", "0.100000000000000001")):
            answer = node.request("POST", "/api/v1/wallet/send", raw=('{"to":"%s","amount":%s}' % (STRANGER, raw)).encode())
            self.assertEqual((answer.status, exact(answer.body).get("amount")), (200, printed), answer.body)

    def test_staking(self):
        node = self.rich(available=6000)
        post = lambda path, body: node.post("/api/v1/wallet/" + path, body)

        def refused(path, body, field, reason=None):
            answer = post(path, body)
            self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"), (path, body, answer.body))
            if field:
                self.assertEqual(answer.details["field"], field, (path, body, answer.body))
            if reason:
                self.assertEqual(answer.details["reason"], reason, answer.body)
            return answer
        refused("stake/add", {"amount": 5}, None)
        refused("stake/extend", {"additional_days": 5}, None)
        refused("unstake", {"amount": 5}, None)
        refused("unstake", {}, None)
        refused("stake", {"amount": 999}, "amount")
        refused("stake", {"amount": 1000, "duration_days": 6}, "duration_days")
        refused("stake", {"amount": 1000, "duration_days": 366}, "duration_days")
        refused("stake", {"amount": 1000, "duration_days": 7.5}, "duration_days")
        refused("stake", {"amount": 10000001}, "amount")
        answer = post("stake", {"amount": 1000})
        self.assertEqual(answer.status, 200, answer.body)
        body = exact(answer.body)
        self.assertEqual(list(body), ["success", "stake", "new_balance"])
        self.assertEqual(list(body["stake"]), ["amount", "duration_days", "start_date", "unlock_date", "multiplier"])
        self.assertEqual((body["stake"]["amount"], body["stake"]["duration_days"], body["stake"]["multiplier"]),
                         ("1000.0", ("int", 30), "1.1"))
        self.assertEqual(set(body["new_balance"]), {"available", "staked"})
        answer = post("stake/add", {"amount": "1000"})
        self.assertEqual(exact(answer.body)["stake"]["multiplier"], "1.158496")
        answer = post("stake/extend", {"additional_days": 10})
        self.assertEqual(answer.json()["stake"]["duration_days"], 40)
        refused("stake/extend", {"additional_days": 326}, "additional_days")
        refused("stake/extend", {"additional_days": 0}, "additional_days")
        locked = refused("unstake", {"amount": 1000}, None, "stake_locked")
        self.assertRegex(locked.details["unlock_date"], f"^{DATE}$")
        refused("unstake", {"amount": 2001}, None, "exceeds_stake")
        refused("unstake", {"amount": 0}, "amount")
        info = exact(node.get("/api/v1/stake/info").body)
        self.assertEqual((info["stake"], info["amount"], info["stake_multiplier"], info["days_remaining"]),
                         ("2000.0", "2000.0", "1.158496", ("int", 40)))
        staking = exact(node.get("/api/v1/wallet/balance").body)["staking"]
        self.assertEqual((staking["amount"], staking["unlock_date"]), ("2000.0", info["unlock_date"]))

    def test_equal_requests_one_after_the_other_are_all_executed(self):
        node = self.rich({"threads.http": 2})  # so that a close and the next request are seen by different threads
        body = {"to": STRANGER, "amount": 1}
        # Each over a connection of its own, which is closed in order and at once.
        seen = [node.post("/api/v1/wallet/send", body).json()["transaction_id"] for _ in range(300)]
        self.assertEqual(len(set(seen)), 300)
        # Over one connection, as a session of the SDK does.
        connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
        for _ in range(20):
            connection.request("POST", "/api/v1/wallet/send", json.dumps(body), {"Authorization": "Bearer " + node.token})
            seen.append(json.loads(connection.getresponse().read())["transaction_id"])
        connection.close()
        self.assertEqual(len(set(seen)), 320)

    def test_a_response_that_was_lost_is_given_again_even_after_a_crash(self):
        node = self.rich()
        payload = json.dumps({"to": STRANGER, "amount": 3}).encode()
        head = (f"POST /api/v1/wallet/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token}\r\n"
                f"Content-Length: {len(payload)}\r\n\r\n").encode()
        before = node.get("/api/v1/wallet/transactions?type=send").json()["total"]
        s = socket.create_connection(("127.0.0.1", node.port), 5)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(head + payload)
        support.wait_for(lambda: node.get("/api/v1/wallet/transactions?type=send").json()["total"] == before + 1, 10, "the transfer")
        s.close()  # a reset: the response has reached nobody
        time.sleep(0.2)
        node.kill()
        node.start()
        lost = node.get("/api/v1/wallet/transactions?type=send").json()
        self.assertEqual(lost["total"], before + 1)
        answer = node.request("POST", "/api/v1/wallet/send", raw=payload)
        self.assertEqual((answer.status, answer.json()["transaction_id"]), (200, lost["transactions"][0]["id"]), answer.body)
        # It was read and its connection closed in order: soon the same words are a new wish.
        again = lambda: node.request("POST", "/api/v1/wallet/send", raw=payload).json()["transaction_id"]
        support.wait_for(lambda: again() != lost["transactions"][0]["id"], 10, "a new transfer", node)

    def test_idempotency_keys(self):
        node = self.rich()
        key = {"Idempotency-Key": "order 17"}
        body = {"to": STRANGER, "amount": 1}
        bad = node.post("/api/v1/wallet/send", {"to": STRANGER, "amount": 1e12}, headers=key)
        self.assertEqual(bad.status, 402)  # is not stored
        first = node.post("/api/v1/wallet/send", body, headers=key)
        self.assertEqual(first.status, 200, first.body)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            again = list(pool.map(lambda _: node.post("/api/v1/wallet/send", body, headers=key), range(16)))
        self.assertEqual({r.body for r in again}, {first.body})
        answer = node.post("/api/v1/wallet/send", {"to": STRANGER, "amount": 2}, headers=key)
        self.assertEqual((answer.status, answer.code), (400, "INVALID_REQUEST"))
        for wrong in ("", "x" * 129, "a\tb"):
            self.assertEqual(node.post("/api/v1/wallet/send", body, headers={"Idempotency-Key": wrong}).status, 400, repr(wrong))
        text = {"prompt": "the", "max_tokens": 4}
        one = node.post("/api/v1/inference", text, headers=key)
        self.assertEqual(one.status, 200, one.body)
        self.assertEqual(node.post("/api/v1/inference", text, headers=key).body, one.body)
        self.assertEqual(node.post("/api/v1/inference", {"prompt": "a", "max_tokens": 4}, headers=key).status, 400)
        node.kill()
        node.start()
        self.assertEqual(node.post("/api/v1/wallet/send", body, headers=key).body, first.body)
        self.assertEqual(node.post("/api/v1/inference", text, headers=key).body, one.body)


if __name__ == "__main__":
    support.main()

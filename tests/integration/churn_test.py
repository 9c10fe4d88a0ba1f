"""Nodes that come and go every few seconds, with a goodbye or without: those that stay are none the worse."""

import os
import time
import unittest

from cluster import ClusterTest, grpc_address, id_of, peers
from support import main, wait_for

SECONDS = float(os.environ.get("NEUROSHARD_CHURN_SECONDS", "40"))


class Churn(ClusterTest):
    def files(self, node):
        return len(os.listdir(f"/proc/{node.process.pid}/fd"))

    def know_each_other(self, nodes):
        ids = {id_of(node) for node in nodes}
        return all({peer for peer, what in peers(node).items() if what["state"] == "online"} == ids - {id_of(node)} for node in nodes)

    def one_keeper(self, nodes):
        """Whether they go by the map of the same keeper: its versions are logged where something in them is new."""
        return len({node.log().split(" layer-map version=")[-1].split()[1] for node in nodes}) == 1

    def test_who_stays_is_none_the_worse_for_those_that_come_and_go(self):
        # Without training, so that what memory grows by is what those that come and go leave behind.
        stays = self.add_node(**{"training.enabled": False}).start().wait_up()
        guests = [self.add_node(grpc_address(stays), **{"training.enabled": False}) for _ in range(3)]
        for guest in guests:
            guest.start(ready=False)
        everybody = [stays, *guests]
        for guest in guests:
            guest.wait_listening()
        wait_for(lambda: self.know_each_other(everybody), 60, "all to meet", stays)
        files, memory = self.files(stays), stays.memory_kb()
        turns, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end or turns < 6:
            guest = guests[turns % len(guests)]
            if turns % 2:
                guest.kill()
            else:
                self.assertEqual(guest.terminate(60), 0, guest.text())
            answer = stays.post("/api/v1/inference", {"prompt": "a", "max_tokens": 2})
            self.assertEqual(answer.status, 200, answer.body)
            guest.restart(ready=False)
            guest.wait_listening()
            turns += 1
        wait_for(lambda: self.know_each_other(everybody), 60, "all to know each other", stays)
        wait_for(lambda: self.one_keeper(everybody), 60, "one keeper", stays)
        wait_for(lambda: self.files(stays) <= files + 16, 90, "the connections of those that went to be closed", stays)
        print(f"{turns} turns: {memory} -> {stays.memory_kb()} kB, {files} -> {self.files(stays)} files")
        self.assertLess(stays.memory_kb(), memory + (96 << 10))
        self.assertEqual([node.terminate(60) for node in everybody], [0] * 4)


if __name__ == "__main__":
    main()

"""A stage that stands still in the middle of training past every time-out, and one that is killed there."""

import signal
import unittest

from cluster import ClusterTest, held, id_of, outer, peers, processor_ns
from support import main, wait_for

EMBED = ("embedding", 0)


class Stalls(ClusterTest):
    def trains(self, driver, steps=20, seconds=60):
        before = driver.step()
        wait_for(lambda: driver.step() >= before + steps, seconds, "further steps", driver)

    def pair(self, **settings):
        nodes = self.start_nodes(2, **{"peers.max_layers": 1, "training.microbatches": 2, **settings})
        wait_for(lambda: sorted(map(len, map(held, nodes))) == [2, 2] and not held(nodes[0]) & held(nodes[1]), 60,
                 "half of the model on each", nodes[0])
        return sorted(nodes, key=lambda node: EMBED not in held(node))

    def test_a_stage_stands_still_past_every_time_out_and_training_goes_on_after_it(self):
        driver, stage = self.pair(**{"training.diloco_steps": 10000})
        self.trains(driver)
        ghost = id_of(stage)
        stage.signal(signal.SIGSTOP)
        try:
            # Dead after 60 s of silence; calls to it end before.
            wait_for(lambda: ghost not in peers(driver), 100, "its end", driver)
            wait_for(lambda: "layer.1" in driver.log().split("waits why=")[-1][:60], 60, "a word of what is missing", driver)
            # It stands in nobody's way: the driver answers as ever.
            still = driver.step()
            answer = driver.post("/api/v1/inference", {"prompt": "the ", "max_tokens": 2})
            self.assertEqual((answer.status, answer.code, answer.details["reason"]), (500, "INTERNAL_ERROR", "no_route"),
                             answer.body)
            self.assertEqual(driver.step(), still)
        finally:
            stage.signal(signal.SIGCONT)
        self.trains(driver)
        self.assertEqual(outer(driver), outer(stage))
        self.assertEqual([stage.terminate(), driver.terminate()], [0, 0])

    def test_a_stage_is_killed_in_a_step_and_its_driver_goes_on_over_the_replica(self):
        nodes = self.start_nodes(4, **{"peers.max_layers": 1, "training.microbatches": 2, "training.diloco_steps": 10000})
        wait_for(lambda: sum(EMBED in held(node) for node in nodes) == 2 and all(len(held(node)) == 2 for node in nodes), 60,
                 "two drivers and two other stages", nodes[0])
        drivers = [node for node in nodes if EMBED in held(node)]
        stages = [node for node in nodes if node not in drivers]
        # A stage works for one driver: the other one makes room.
        self.assertEqual(drivers[1].request("PATCH", "/api/v1/config", {"training": {"enabled": False}}).status, 200)
        self.trains(drivers[0])
        busy = {node: -processor_ns(node) for node in stages}
        self.trains(drivers[0], 100)
        max(stages, key=lambda node: busy[node] + processor_ns(node)).kill()
        self.trains(drivers[0], 100, seconds=90)


if __name__ == "__main__":
    main()

"""A stop while the disk does not answer: the process leaves in its 30 s all the same, and the next start goes on. For a
minute or two, so `tests/run --soak` only; it needs the library of hanging_fsync.cpp (--hang-library)."""

import os
import signal
import sys
import time

import support

HANG_LIBRARY = None  # set below
STOP_SECONDS = 30  # what a stop may take, whatever hangs


class HangingStop(support.NodeTest):
    def hanging(self, path):
        """A node whose syncs of files at this path hang while `self.marker` exists."""
        self.marker = os.path.join(self.directory, "hang")
        node = self.node(settings={"checkpoint.every_steps": 40})
        node.environment = {"LD_PRELOAD": HANG_LIBRARY, "NEUROSHARD_TEST_HANG_AT": path,
                            "NEUROSHARD_TEST_HANG_WHILE": self.marker, "ASAN_OPTIONS": "verify_asan_link_order=0"}
        node.start()
        node.wait_step(100)
        support.wait_for(lambda: len(node.checkpoints()) >= 2, 60, "checkpoints", node)
        return node

    def hang(self):
        with open(self.marker, "wb"):
            pass

    def stop(self, node):
        """Exit status and seconds of a stop by SIGTERM."""
        began = time.monotonic()
        status = node.terminate(STOP_SECONDS + 30)
        return status, time.monotonic() - began

    def goes_on(self, node, kept):
        """The next start takes the newest checkpoint that was whole, and the book is in order."""
        os.unlink(self.marker)
        before = len(node.text())
        node.restart().wait_up()
        resumed = f"resumed checkpoint={os.path.basename(kept)} "
        support.wait_for(lambda: resumed in node.log(), 20, resumed)
        node.wait_step(int(os.path.basename(kept)[:12]) + 60)
        self.assertEqual(node.terminate(), 0, node.text()[before:])
        node.ledger()

    def test_a_checkpoint_that_hangs_is_left_behind(self):
        node = self.hanging("/checkpoints/")
        self.hang()
        kept = node.checkpoints()[-1]
        status, seconds = self.stop(node)
        print(f"left after {seconds:.1f} s", flush=True)
        self.assertEqual(status, 5, node.text())
        self.assertLess(seconds, STOP_SECONDS)
        # The trainer, when its own last checkpoint hangs; one that was under way hangs the checkpointer.
        self.assertRegex(node.text(), "stop-goes-on without=(trainer|checkpointer) ")
        self.assertRegex(node.text(), "unclean-stop why=.*checkpointer.* did not end in time")
        self.assertIn(kept, node.checkpoints())
        self.goes_on(node, node.checkpoints()[-1])

    def test_a_book_that_hangs_is_left_behind(self):
        node = self.hanging("/ledger.db")
        self.hang()
        status, seconds = self.stop(node)
        print(f"left after {seconds:.1f} s", flush=True)
        self.assertEqual(status, 5, node.text())
        self.assertLess(seconds, STOP_SECONDS)
        self.assertIn("stop-goes-on without=ledger", node.text())
        self.assertRegex(node.text(), "unclean-stop why=.*ledger.* did not end in time")
        self.goes_on(node, node.checkpoints()[-1])

    def test_a_disk_that_answers_again_in_time_makes_it_a_clean_stop(self):
        node = self.hanging("/checkpoints/")
        self.hang()
        node.signal(signal.SIGTERM)
        support.wait_for(lambda: "stopping signal" in node.log(), 10, "the stop to begin", node)
        time.sleep(3)
        self.assertIsNone(node.process.poll())
        os.unlink(self.marker)
        self.assertEqual(node.wait_end(STOP_SECONDS), 0, node.text())
        kept = node.checkpoints()[-1]
        self.hang()  # for goes_on to take away
        self.goes_on(node, kept)

    def test_a_second_signal_is_not_held_up(self):
        node = self.hanging("/checkpoints/")
        self.hang()
        kept = node.checkpoints()[-1]
        node.signal(signal.SIGTERM)
        time.sleep(1)  # nearer together they count as one
        node.signal(signal.SIGTERM)
        self.assertEqual(node.wait_end(10), 128 + signal.SIGTERM, node.text())
        self.assertIn(kept, node.checkpoints())
        self.goes_on(node, node.checkpoints()[-1])


if __name__ == "__main__":
    at = sys.argv.index("--hang-library")
    HANG_LIBRARY = os.path.abspath(sys.argv[at + 1])
    del sys.argv[at:at + 2]
    support.main()

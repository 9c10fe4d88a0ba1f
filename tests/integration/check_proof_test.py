"""`neuroshard ledger check-proof`: a step of a real node's training is repeated; a proof that lies is refuted and voided."""

import contextlib
import os
import sqlite3

from support import NodeTest, main, program

UNKNOWN = "0" * 63 + "1"


class CheckProof(NodeTest):
    def setUp(self):
        super().setUp()
        # Rewards stay pending for long enough to be voided; the checkpoint that training began with is kept.
        self.node = self.node(settings={"checkpoint.keep": 100, "economics.maturity_s": 86400})
        self.node.start().wait_step(20)
        self.node.prove_all()
        proofs = self.node.get("/api/v1/proofs?type=training&limit=100").exact()
        self.assertTrue(all(p["verified"] for p in proofs["proofs"]))
        self.proof, self.reward = proofs["proofs"][-1]["id"], proofs["proofs"][-1]["reward"]
        self.submitted = proofs["stats"]["total_submitted"]
        self.verified = proofs["stats"]["total_verified"]

    def check(self, *arguments):
        return program(*self.node.arguments("ledger", "check-proof", *arguments)[1:])

    def edit(self, sql, values=()):
        with contextlib.closing(sqlite3.connect(self.node.data_dir + "/ledger.db")) as book, book:
            return book.execute(sql, values).fetchall()

    def verify(self):
        return self.node.run("ledger", "verify", "--signatures")

    def test_a_proof_agrees_until_what_it_committed_to_is_another(self):
        # Beside the node, which goes on serving.
        agreed = self.check(self.proof)
        self.assertEqual((agreed.returncode, agreed.stderr), (0, ""), agreed.stdout)
        self.assertIn("compared:   bit for bit (f32 on a CPU)", agreed.stdout)
        self.assertTrue(agreed.stdout.endswith("The proof agrees.\n"), agreed.stdout)
        busy = self.check(self.proof, "--void")
        self.assertEqual(busy.returncode, 3)
        self.assertIn("Nothing is voided", busy.stderr)
        self.assertEqual(self.node.terminate(), 0)
        kept = self.check(self.proof, "--void")
        self.assertEqual(kept.returncode, 0, kept.stderr)
        self.assertTrue(kept.stdout.endswith("The proof agrees.\n"), kept.stdout)

        for bad in ("12", UNKNOWN + "0", ""):
            self.assertEqual(self.check(bad).returncode, 1, bad)
        unknown = self.check(UNKNOWN)
        self.assertEqual((unknown.returncode, unknown.stderr), (3, "No proof of this id is in the book.\n"))

        # Another gradient was committed to than the step has.
        commitment, preimage = self.edit("SELECT commitment, preimage FROM commitments WHERE proof_id = ?",
                                         (bytes.fromhex(self.proof),))[0]
        altered = bytearray(preimage)
        altered[len(altered) // 2] ^= 0x40
        self.edit("UPDATE commitments SET preimage = ? WHERE commitment = ?", (bytes(altered), commitment))
        refuted = self.check(self.proof)
        self.assertEqual((refuted.returncode, refuted.stderr), (1, ""), refuted.stdout)
        self.assertIn("The proof is REFUTED (preimage)", refuted.stdout)
        self.assertIn("--void", refuted.stdout)
        voided = self.check(self.proof, "--void")
        self.assertEqual((voided.returncode, voided.stderr), (1, ""), voided.stdout)
        self.assertRegex(voided.stdout, rf"Voided: {self.reward} NEURO of its reward burned, 0\.0 had matured; slashed 0\.0\.\n$")
        again = self.check(self.proof, "--void")
        self.assertEqual(again.returncode, 1)
        self.assertIn("accepted, since then refuted: preimage", again.stdout)
        self.assertIn("It was voided before", again.stdout)

        # The altered preimage is what verify finds; with it back, the book is in order and the proof stays rejected.
        self.assertIn("the preimage of commitment", self.verify().stdout)
        self.edit("UPDATE commitments SET preimage = ? WHERE commitment = ?", (preimage, commitment))
        self.assertEqual(self.verify().returncode, 0, self.verify().stdout)
        self.assertEqual(self.check(self.proof).returncode, 0)  # says what is so, whatever the book counts
        self.node.start("--no-training").wait_up()
        shown = self.node.get("/api/v1/proofs?type=training&limit=100").exact()
        self.assertEqual((shown["proofs"][-1]["id"], shown["proofs"][-1]["verified"]), (self.proof, False))
        self.assertEqual(shown["proofs"][-1]["reward"], 0)
        self.assertEqual(shown["stats"]["total_submitted"], self.submitted)
        self.assertEqual(shown["stats"]["total_verified"], self.verified - 1)
        self.assertEqual(self.node.get("/api/v1/wallet/balance").exact()["balances"]["pending"],
                         self.node.get("/api/v1/wallet/rewards").exact()["total"] - self.reward)
        self.assertEqual(self.node.terminate(), 0)

        # What a check needs may be gone.
        first = min(self.node.checkpoints(), key=os.path.basename)
        os.rename(first, first + ".away")
        gone = self.check(self.proof)
        self.assertEqual(gone.returncode, 3)
        self.assertRegex(gone.stderr, r"^The proof cannot be checked: .*(pruned|only a proof that begins).*\.\n$")
        self.edit("DELETE FROM commitments")
        gone = self.check(self.proof)
        self.assertEqual(gone.returncode, 3)
        self.assertIn("24 hours have passed", gone.stderr)


if __name__ == "__main__":
    main()

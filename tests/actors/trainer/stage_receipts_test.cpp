#include "tests/actors/trainer/node_fixture.hpp"

namespace neuroshard::test {

TEST_CASE_FIXTURE(node_fixture, "a stage has a receipt for each round it was bound, signed by both sides") {
  give_keys();
  options.diloco_steps = 3;
  options.enabled = false;
  stages = 2;
  uint64_t tokens_of_round = 0;
  watch = [&](const training_progress& p) {
    if (p.inner_step == 3)
      tokens_of_round = p.tokens_trained;
  };
  spawn();
  start();
  run_to(7);
  REQUIRE(books[0].size() == 2);
  REQUIRE(books[1].size() == 4);
  for (size_t round = 0; round < 2; ++round) {
    const auto& kept = books[0][round];
    const auto both = read_receipt(kept.worker_blob, kept.driver_blob, clock->unix_us() / 1'000);
    REQUIRE(both);
    REQUIRE(both->driver);
    CHECK(both->what.kind == receipt_kind::training);
    CHECK(both->what.worker_node_id == id(1));
    CHECK(both->driver->node_id == id(0));
    CHECK(both->what.work_id == options.session_id);
    CHECK(both->what.steps == 3);
    CHECK(both->what.tokens == tokens_of_round);
    CHECK(both->what.model_version == round);
    CHECK(both->what.head);
    // The stage has its own word first, then both.
    CHECK(books[1][2 * round].driver_blob.empty());
    CHECK(books[1][2 * round + 1].worker_blob == kept.worker_blob);
    CHECK(books[1][2 * round + 1].driver_blob == kept.driver_blob);
  }
  CHECK(books[0][0].worker_blob != books[0][1].worker_blob);
}

} // namespace neuroshard::test

#include "tests/actors/trainer/node_fixture.hpp"

#include <fstream>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

std::string newest_checkpoint(const std::string& folder) {
  const auto found = list_folder(folder);
  REQUIRE_FALSE(found.empty());
  return folder + "/" + found.front().id;
}

} // namespace

TEST_CASE_FIXTURE(
    node_fixture,
    "killed at any step and started again, training goes on bit for bit as if nothing had been") {
  options.enabled = false;
  spawn("uninterrupted");
  start();
  run_to(25);
  const auto expected = losses;
  const auto expected_weights = weights();
  const auto expected_progress = progress();
  kill();
  losses.clear();

  spawn();
  CHECK_FALSE(start().found);
  for (const uint64_t killed_at : {uint64_t{3}, uint64_t{9}, uint64_t{12}, uint64_t{20}, uint64_t{24}}) {
    run_to(killed_at);
    kill();
    spawn();
    const auto found = start();
    CHECK(found.found);
    CHECK(found.state.inner_step <= killed_at);
    CHECK(progress()->inner_step == found.state.inner_step);
    CHECK(progress()->tokens_trained == found.state.inner_step * 64);
  }
  run_to(25);
  CHECK(losses == expected);
  CHECK(weights() == expected_weights);
  const auto now = progress();
  CHECK(now->loss_ema == expected_progress->loss_ema);
  CHECK(now->loss_history == expected_progress->loss_history);
  CHECK(now->validation_loss == expected_progress->validation_loss);
  CHECK(now->untrained_loss == expected_progress->untrained_loss);
  CHECK(now->tokens_trained == expected_progress->tokens_trained);
  CHECK(now->outer_model_hash == expected_progress->outer_model_hash);
}

TEST_CASE_FIXTURE(node_fixture, "a newest checkpoint that is damaged costs its steps and nothing else") {
  options.enabled = false;
  spawn();
  start();
  run_to(16);
  const auto expected = losses;
  kill();
  const auto path = newest_checkpoint(root.path() + "/checkpoints") + "/tensors.bin";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  spawn();
  const auto found = start();
  CHECK(found.found);
  CHECK(found.set_aside.size() == 1);
  CHECK(found.state.inner_step < 16);
  losses.clear();
  run_to(16);
  for (const auto& [step, loss] : losses)
    CHECK(loss == expected.at(step));
}

TEST_CASE_FIXTURE(node_fixture, "two batches of half the size in one step are one batch") {
  options.enabled = false;
  options.microbatches = 1;
  spawn("whole");
  start();
  run_to(3);
  const auto whole = losses;
  kill();
  losses.clear();
  options.microbatches = 4;
  spawn("parts");
  start();
  run_to(3);
  for (const auto& [step, loss] : losses)
    CHECK(loss == doctest::Approx(whole.at(step)).epsilon(1e-5));
}

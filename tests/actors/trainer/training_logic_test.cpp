#include "actors/trainer/reward_claims.hpp"
#include "actors/trainer/step_batch.hpp"
#include "actors/trainer/training_log.hpp"
#include "actors/trainer/training_metrics.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <array>
#include <filesystem>
#include <limits>

using namespace neuroshard;

TEST_CASE("the loss EMA starts at the first loss and takes a tenth of each new one") {
  training_metrics m;
  CHECK_FALSE(m.ema());
  m.step(1, 8, 100, 0);
  CHECK(*m.ema() == 8);
  m.step(2, 6, 100, 0);
  CHECK(*m.ema() == doctest::Approx(7.8));
  m.step(3, 20, 100, 0);
  CHECK(*m.ema() == doctest::Approx(9.02));
  CHECK(*m.least() == doctest::Approx(7.8));
}

TEST_CASE("loss checkpoints come every ten steps, a hundred are kept, and the first three for ever") {
  training_metrics m;
  for (uint64_t s = 1; s <= 1500; ++s)
    m.step(s, static_cast<double>(s), 1, 0);
  CHECK(m.history().size() == 100);
  CHECK(m.first().size() == 3);
  CHECK(m.first()[0] < 10);
  training_state saved;
  m.store(saved);
  training_metrics again;
  again.restore(saved);
  CHECK(again.ema() == m.ema());
  CHECK(again.history() == m.history());
  CHECK(again.first() == m.first());
  CHECK(again.least() == m.least());
  m.step(1501, 3, 1, 0);
  again.step(1501, 3, 1, 0);
  CHECK(again.ema() == m.ema());
}

TEST_CASE("tokens per second are those of the last thirty seconds") {
  training_metrics m;
  CHECK(m.tokens_per_second(0) == 0);
  for (int64_t s = 0; s <= 100; ++s)
    m.step(static_cast<uint64_t>(s) + 1, 1, s < 60 ? 10 : 1000, s * 1'000'000);
  CHECK(m.tokens_per_second(100'000'000) == doctest::Approx(1000));
  CHECK(m.steps_per_second(100'000'000) == doctest::Approx(1));
  m.pause();
  CHECK(m.tokens_per_second(200'000'000) == 0);
}

TEST_CASE("claims cover every step once, and only what is on disk") {
  reward_claims c;
  c.begin(0, "");
  c.saving(0);
  CHECK_FALSE(c.saved(0, "h0")); // nothing was done yet
  for (uint64_t s = 1; s <= 10; ++s)
    c.step(s, 100);
  c.saving(10);
  c.step(11, 100); // goes on while the checkpoint is written
  auto first = c.saved(10, std::nullopt);
  REQUIRE(first);
  CHECK(first->model_hash_start == "h0");
  CHECK(first->step_begin == 0);
  CHECK(first->step_end == 10);
  CHECK(first->label_tokens == 1000);
  CHECK_FALSE(c.saved(10, std::nullopt));
  c.step(12, 50);
  c.saving(12);
  auto second = c.saved(12, "h1"); // the end of the round
  REQUIRE(second);
  CHECK(second->model_hash_start == "h0");
  CHECK(second->step_begin == 10);
  CHECK(second->step_end == 12);
  CHECK(second->label_tokens == 150);
  c.step(13, 0); // skipped
  c.saving(13);
  CHECK_FALSE(c.saved(13, std::nullopt));
  c.step(14, 7);
  c.saving(14); // fails: never saved
  c.step(15, 7);
  c.saving(15);
  auto third = c.saved(15, std::nullopt);
  REQUIRE(third);
  CHECK(third->model_hash_start == "h1");
  CHECK(third->step_begin == 13);
  CHECK(third->step_end == 15);
  CHECK(third->label_tokens == 14);
}

TEST_CASE("without the checkpoint of an outer step nothing is claimed") {
  reward_claims c;
  c.begin(5, "");
  c.step(6, 10);
  c.saving(6);
  CHECK_FALSE(c.saved(6, std::nullopt));
}

TEST_CASE("a batch is cut into even parts that fit the stage") {
  CHECK(rows_per_part(8, 4, 512, 1 << 20) == 2);
  CHECK(rows_per_part(8, 1, 256, 1 << 20) == 8);
  CHECK(rows_per_part(7, 2, 256, 1 << 20) == 4);
  CHECK(rows_per_part(8, 1, 512, 1024) == 2);
  CHECK(rows_per_part(8, 1, 512, 10) == 1);
  CHECK(rows_per_part(1, 4, 512, 1024) == 1);
}

TEST_CASE("the hash of a batch covers each row's ids and labels, however it is cut") {
  step_batch whole;
  whole.rows = 3;
  whole.seq = 2;
  whole.parts.push_back({3, {1, 2, 3, 4, 5, 6}, {2, 7, 4, 8, 6, -100}, 5});
  step_batch cut = whole;
  cut.parts = {{2, {1, 2, 3, 4}, {2, 7, 4, 8}, 4}, {1, {5, 6}, {6, -100}, 1}};
  const std::array<int32_t, 12> rows{1, 2, 2, 7, 3, 4, 4, 8, 5, 6, 6, -100};
  const auto expected = kernels::sha256().update(rows.data(), sizeof(rows)).finish();
  CHECK(data_hash_of(whole) == expected);
  CHECK(data_hash_of(cut) == expected);
  cut.parts[1].labels[1] = 9;
  CHECK(data_hash_of(cut) != expected);
}

TEST_CASE("the training log is JSON lines, finite, and its files are bounded") {
  test::temporary_directory root;
  training_log log(root.path() + "/logs");
  training_progress p;
  p.inner_step = 10;
  p.loss = 2.5;
  p.loss_ema = std::numeric_limits<double>::quiet_NaN();
  CHECK(training_log_line(p, 1).find("\"loss\":2.5,\"loss_ema\":null") != std::string::npos);
  CHECK(log.append(p, 1));
  CHECK(log.append(p, 2));
  CHECK(root.read("logs/loss.jsonl").find("\"unix_us\":2") != std::string::npos);
  std::filesystem::resize_file(root.path() + "/logs/loss.jsonl", training_log::file_bytes_max);
  CHECK(log.append(p, 3));
  CHECK(std::filesystem::file_size(root.path() + "/logs/loss.jsonl") < 1000);
  CHECK(std::filesystem::exists(root.path() + "/logs/loss.1.jsonl"));
  CHECK(training_log().append(p, 4));
  root.write("file", "x");
  CHECK_FALSE(training_log(root.path() + "/file").append(p, 5));
}

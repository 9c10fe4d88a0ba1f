#include "actors/trainer/step_batch.hpp"
#include "actors/trainer/training_log.hpp"
#include "actors/trainer/training_metrics.hpp"
#include "actors/trainer/unproven_work.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <sys/resource.h>

#include <array>
#include <csignal>
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

namespace {

const std::string hash_a(64, 'a');
const std::string hash_b(64, 'b');

/// Commits to everything, by the number of its first step.
bool commit_to(const unproven_work::first_step& first, unclaimed_work& to) {
  to.commitment = std::string(62, 'c') + std::to_string(10 + to.step_begin % 90);
  to.data_hash = kernels::to_hex(first.data_hash);
  to.batch_size = first.batch_size;
  to.seq_len = first.seq_len;
  to.loss_e6 = 1;
  return true;
}

struct work_fixture {
  unproven_work work;
  int64_t now_us = 0;
  int samples = 0;

  void steps(uint64_t first, uint64_t last, uint64_t tokens = 100, int64_t each_us = 1'000'000) {
    for (uint64_t number = first; number <= last; ++number) {
      std::optional<unproven_work::first_step> sampled;
      if (work.wants_sample(now_us)) {
        ++samples;
        sampled = unproven_work::first_step{nullptr, 2.5, 1, {}, 4, 50};
      }
      work.step(number, tokens, std::move(sampled), now_us);
      work.commit(commit_to);
      now_us += each_us;
    }
  }
  offered_work take(uint64_t tokens = 1'000'000) { return work.offer(tokens, 1'000'000); }
};

} // namespace

TEST_CASE_FIXTURE(work_fixture, "work is offered until it is proven, then what came after it") {
  work.begin(0, hash_a, {});
  CHECK(take().step_end == 0);
  steps(1, 10);
  CHECK(samples == 1);
  auto first = take();
  CHECK(first.step_begin == 0);
  CHECK(first.step_end == 10);
  CHECK(first.label_tokens == 1'000);
  CHECK(first.batch_size == 4);
  CHECK(first.seq_len == 50);
  REQUIRE(first.segments.size() == 1);
  CHECK(kernels::to_hex(first.segments[0].model_hash) == hash_a);
  steps(11, 12); // while the proof is made
  CHECK(samples == 2);
  CHECK(take().step_end == 12); // it was not recorded
  work.proven(0, 10);
  const auto second = take();
  CHECK(second.step_begin == 10);
  CHECK(second.step_end == 12);
  CHECK(second.commitment != first.commitment);
  work.proven(10, 12);
  CHECK(take().step_end == 0);
  CHECK(work.open(12).empty());
}

TEST_CASE_FIXTURE(work_fixture, "steps after a round are told of once its hash is known, under it") {
  work.begin(0, hash_a, {});
  steps(1, 10, 100, 4'000'000);
  work.round_ended(10);
  CHECK(work.outer_under_way() == 10);
  steps(11, 15);
  CHECK(samples == 2);
  CHECK(take().step_end == 10);
  const auto kept = work.open(15);
  REQUIRE(kept.size() == 2);
  CHECK(kept[0].step_end == 10);
  CHECK(kept[1].hash_of == 10); // a first step is committed to with its hash, so that comes later
  CHECK(kept[1].commitment == "");
  work.outer_saved(10, hash_b);
  work.commit(commit_to);
  CHECK_FALSE(work.outer_under_way());
  CHECK(work.outer_hash() == hash_b);
  auto both = take();
  CHECK(both.step_end == 15);
  REQUIRE(both.segments.size() == 2);
  CHECK(both.segments[0].step_end == 10);
  CHECK(kernels::to_hex(both.segments[1].model_hash) == hash_b);
  CHECK(both.segments[1].step_begin == 10);
  work.proven(0, 10);
  CHECK(take().step_begin == 10);
}

TEST_CASE_FIXTURE(work_fixture, "a round whose checkpoint failed leaves its steps to the round before") {
  work.begin(0, hash_a, {});
  steps(1, 2);
  work.round_ended(2);
  steps(3, 4);
  work.outer_saved(2, "");
  work.commit(commit_to);
  const auto all = take();
  CHECK(all.step_end == 4);
  REQUIRE(all.segments.size() == 1);
  CHECK(all.segments[0].step_end == 4);
  // Without any weights on disk there is nothing to begin with.
  work.begin(0, "", {});
  work.round_ended(0);
  steps(1, 3);
  work.outer_saved(0, "");
  work.commit(commit_to);
  CHECK(take().step_end == 0);
}

TEST_CASE_FIXTURE(work_fixture,
                  "what has piled up is told of in parts that fit, and nothing is told of twice") {
  work.begin(0, hash_a, {});
  steps(1, 200); // nobody took any for 200 s
  CHECK(samples == 4);
  uint64_t at = 0, tokens = 0;
  for (int proofs = 0; proofs < 10; ++proofs) {
    const auto part = take(7'000);
    if (part.step_begin == part.step_end)
      break;
    CHECK(part.step_begin == at);
    CHECK(part.label_tokens <= 7'000);
    at = part.step_end;
    tokens += part.label_tokens;
    work.proven(part.step_begin, part.step_end);
  }
  CHECK(at == 200);
  CHECK(tokens == 20'000);
  steps(201, 202);
  CHECK(work.offer(1'000'000, 1).step_end == 0); // more steps than may be
}

TEST_CASE_FIXTURE(work_fixture,
                  "a node that is faster than proofs may be believed tells of a part of its work") {
  work.begin(0, hash_a, {});
  steps(1, 2'000, 100, 1'000); // within two seconds
  const auto part = work.offer(1'000'000, 366);
  CHECK(part.step_begin == 0);
  CHECK(part.step_end == unproven_work::piece_steps);
  work.proven(part.step_begin, part.step_end);
  CHECK(work.offer(1'000'000, 600).step_end == 3 * unproven_work::piece_steps);
  work.begin(0, hash_a, {});
  steps(1, 20, 100'000, 1'000);
  CHECK(work.offer(600'000, 1'000).step_end == 6);
}

TEST_CASE_FIXTURE(work_fixture, "short rounds are sampled now and then, and told of in one proof") {
  work.begin(0, hash_a, {});
  for (uint64_t round = 1; round <= 50; ++round) {
    steps(round, round);
    work.round_ended(round);
    work.outer_saved(round, round % 2 == 0 ? hash_a : hash_b);
  }
  CHECK(samples == 2);
  const auto all = take();
  CHECK(all.step_end == 50);
  CHECK(all.segments.size() == 50);
  steps(51, 51);
  CHECK(samples == 3); // the next proof begins here
  // All of it is kept, and can be told of after a start.
  auto kept = work.open(51);
  CHECK(kept.size() == 51);
  work.begin(51, hash_a, kept);
  CHECK(take().step_end == 51);
  kept.erase(kept.begin());
  work.begin(51, hash_a, kept);
  CHECK(take().step_begin > 0); // what follows nothing cannot begin a proof
}

TEST_CASE_FIXTURE(work_fixture, "what a checkpoint owes is offered first; what cannot be is not believed") {
  const auto owed = [](uint64_t begin, uint64_t end, std::string hash, std::string commitment) {
    unclaimed_work each;
    each.model_hash_start = std::move(hash);
    each.step_begin = begin;
    each.step_end = end;
    each.label_tokens = 64;
    each.commitment = std::move(commitment);
    each.data_hash = std::string(64, 'd');
    each.batch_size = 4;
    each.seq_len = 16;
    return each;
  };
  work.begin(12, hash_b,
             {owed(3, 10, hash_a, std::string(64, 'e')), owed(9, 11, hash_b, std::string(64, 'e')),
              owed(10, 12, hash_b, std::string(64, 'f')), owed(12, 99, hash_b, std::string(64, 'e'))});
  steps(13, 14);
  const auto all = take();
  CHECK(all.step_begin == 3);
  CHECK(all.step_end == 14);
  CHECK(all.segments.size() == 2);
  CHECK(kernels::to_hex(all.commitment) == std::string(64, 'e'));
  CHECK(work.open(14).size() == 3);
  work.begin(12, hash_b, {owed(3, 10, hash_a, ""), owed(10, 12, "not hex", std::string(64, 'e'))});
  CHECK(take().step_end == 0); // of an earlier version, which claimed without proofs
}

TEST_CASE_FIXTURE(work_fixture,
                  "a skipped step is a step without tokens, and no proof is made of nothing else") {
  work.begin(0, hash_a, {});
  work.step(1, 0, std::nullopt, 0);
  CHECK(take().step_end == 0);
  CHECK(work.wants_sample(0));
  steps(2, 3);
  const auto all = take();
  CHECK(all.step_begin == 1); // the first was never committed to
  CHECK(all.step_end == 3);
}

TEST_CASE_FIXTURE(work_fixture, "work that no proof is made of is bounded") {
  work.begin(0, hash_a, {});
  for (uint64_t number = 1; number <= 2 * unproven_work::pieces_max; ++number)
    steps(number, number, 100, unproven_work::piece_us);
  CHECK(take().step_begin == unproven_work::pieces_max);
  CHECK(work.open(2 * unproven_work::pieces_max).size() == unclaimed_max);
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
  using news = training_log::news;
  CHECK(log.append(p, 1) == news::none);
  CHECK(log.append(p, 2) == news::none);
  CHECK(root.read("logs/loss.jsonl").find("\"unix_us\":2") != std::string::npos);
  std::filesystem::resize_file(root.path() + "/logs/loss.jsonl", training_log::file_bytes_max);
  CHECK(log.append(p, 3) == news::none);
  CHECK(std::filesystem::file_size(root.path() + "/logs/loss.jsonl") < 1000);
  CHECK(std::filesystem::exists(root.path() + "/logs/loss.1.jsonl"));
  CHECK(training_log().append(p, 4) == news::none);
}

TEST_CASE("a training log that cannot be written tells so once, and once how many lines were lost") {
  using news = training_log::news;
  test::temporary_directory root;
  root.write("logs", "a file where the folder should be");
  training_log log(root.path() + "/logs");
  training_progress p;
  CHECK(log.append(p, 1) == news::cannot_write);
  CHECK(log.append(p, 2) == news::none);
  CHECK(log.append(p, 3) == news::none);
  std::filesystem::remove(root.path() + "/logs");
  CHECK(log.append(p, 4) == news::writes_again);
  CHECK(log.lost() == 3);
  CHECK(log.append(p, 5) == news::none);
  // And the next time counts anew.
  std::filesystem::remove_all(root.path() + "/logs");
  root.write("logs", "");
  CHECK(log.append(p, 6) == news::cannot_write);
  std::filesystem::remove(root.path() + "/logs");
  CHECK(log.append(p, 7) == news::writes_again);
  CHECK(log.lost() == 1);
}

TEST_CASE("a line of the training log that fits in part is left out whole") {
  using news = training_log::news;
  test::temporary_directory root;
  training_log log(root.path("logs"));
  training_progress p;
  REQUIRE(log.append(p, 1) == news::none);
  const std::string one = root.read("logs/loss.jsonl");
  // A limit on the size of files stops a write in the middle, as a full disk does.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{one.size() + 20, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const auto told = log.append(p, 2);
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK(told == news::cannot_write);
  CHECK(root.read("logs/loss.jsonl") == one);
}

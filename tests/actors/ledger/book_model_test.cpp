// Random operations against a plain reference: NEUROSHARD_TEST_OPERATIONS of them, from NEUROSHARD_TEST_SEED.
// The book lies in memory where the machine has /dev/shm, so that a million take minutes; what a disk adds is
// tested by book_durability_test.cpp and by killing the real process.
#include "tests/actors/ledger/model_run.hpp"

#include <spdlog/spdlog.h>

#include <array>
#include <cstdlib>

namespace neuroshard::testing {

/// A response reached its client: of an answer that is still kept, or of one forgotten long ago.
void model_run::deliver() {
  static constexpr int64_t forgotten_rows = 50;
  int64_t row = static_cast<int64_t>(below(forgotten_rows));
  if (!plain.answers.empty())
    row = one_in(4) ? std::max<int64_t>(plain.answers.back().row - row, 0)
                    : plain.answers[below(plain.answers.size())].row;
  book->mark_delivered(row);
  plain.deliver(row);
}

/// The clock goes on by minutes, jumps by days, or is set back; what is due is not always done at once.
void model_run::let_time_pass() {
  if (one_in(8))
    clock->advance_s(-static_cast<int64_t>(below(10'000)));
  else if (one_in(10))
    clock->us = plain.now_us + static_cast<int64_t>(below(9 * 86'400)) * plain_book::second;
  else
    clock->us = plain.now_us + static_cast<int64_t>(below(400 * plain_book::second));
  time_moves();
  if (one_in(4))
    return find(); // The book has seen this time.
  REQUIRE(book->run_due());
  plain.run_due();
}

void model_run::commit() {
  const bool writes = book->in_group();
  REQUIRE(!book->commit());
  if (!writes)
    return;
  kept = plain;
  head_us = book->head().timestamp_us;
  if (one_in(200))
    readers_agree();
}

/// The process ends in order, or is killed with a group open, and starts again: perhaps with a clock that was
/// set back meanwhile, perhaps with other parameters.
void model_run::restart() {
  if (one_in(3)) {
    const bool writes = book->in_group();
    REQUIRE(!book->close());
    if (writes)
      head_us = book->head().timestamp_us;
    book.reset();
  } else {
    book.reset();
    plain = kept;
    ++kills;
  }
  if (one_in(3))
    clock->us = head_us + static_cast<int64_t>(below(3'600)) * plain_book::second;
  else if (one_in(3))
    clock->advance_s(-static_cast<int64_t>(below(100'000)));
  if (one_in(3)) {
    options.params.transfer_fee_bp = std::array<uint64_t, 3>{10, 0, 25}[below(3)];
    options.params.burn_bp = one_in(2) ? 500 : 333;
    options.params.price_per_token.atto = unit / (one_in(2) ? 10'000 : 7'777);
  }
  // A clock set further back than the newest minute of the book is tried by book_restart_test.cpp.
  const int64_t newest_us = std::max(head_us, plain.last_work_us);
  const int64_t newest_minute_end = (newest_us / plain_book::minute + 1) * plain_book::minute;
  clock->us = std::max<int64_t>(clock->us, newest_minute_end);
  plain.now_us = clock->us;
  plain.start(
      {0, options.params.transfer_fee_bp, options.params.burn_bp, options.params.price_per_token.atto});
  open();
  kept = plain;
  head_us = book->head().timestamp_us;
  same();
  readers_agree();
  // Whoever was waiting for an answer asks again.
  for (int n = 0; n < 5; ++n) {
    settle();
    refund();
    reserve();
    same();
  }
}

void model_run::operation() {
  time_moves();
  const uint64_t drawn = below(30);
  doing = drawn;
  switch (drawn) {
  case 0:
  case 1:
  case 2:
    return send(mark("/api/v1/wallet/send"));
  case 3:
    return send_twice();
  case 4:
  case 5:
  case 6:
    return reserve();
  case 7:
  case 8:
  case 9:
    return settle();
  case 10:
    return refund();
  case 11:
  case 12:
  case 13:
  case 14:
    return prove();
  case 15:
    return stake();
  case 16:
    return add_more();
  case 17:
    return extend();
  case 18:
    return unstake();
  case 19:
    return keep();
  case 20:
    return find();
  case 21:
    return deliver();
  case 22:
  case 23:
    return let_time_pass();
  case 24:
    return commit();
  case 25:
    return one_in(3) ? void_one() : refuse_proof();
  case 26:
    return one_in(2) ? offend() : void_one();
  case 27:
  case 28:
    return drive_others();
  default:
    if (one_in(30))
      restart();
  }
}

} // namespace neuroshard::testing

namespace {

using namespace neuroshard::testing;

constexpr uint64_t default_operations = 150'000;

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given != nullptr ? std::strtoull(given, nullptr, 10) : otherwise;
}

/// Thousands of starts would fill the log.
struct quiet_log {
  spdlog::level::level_enum before = spdlog::get_level();
  quiet_log() { spdlog::set_level(spdlog::level::err); }
  ~quiet_log() { spdlog::set_level(before); }
};

} // namespace

TEST_CASE_FIXTURE(model_run,
                  "random operations agree with a plain reference, and the book is always in order") {
  const auto seed = static_cast<uint32_t>(number_from("NEUROSHARD_TEST_SEED", std::random_device{}()));
  const uint64_t operations = number_from("NEUROSHARD_TEST_OPERATIONS", default_operations);
  std::printf("book_model_test: NEUROSHARD_TEST_SEED=%u NEUROSHARD_TEST_OPERATIONS=%llu\n", seed,
              static_cast<unsigned long long>(operations));
  INFO("NEUROSHARD_TEST_SEED=" << seed);
  const quiet_log quiet;
  random.seed(seed);
  plain.now_us = clock->us;
  plain.start(
      {0, options.params.transfer_fee_bp, options.params.burn_bp, options.params.price_per_token.atto});
  open();
  kept = plain;
  for (uint64_t i = 0; i < operations; ++i) {
    CAPTURE(i);
    CAPTURE(doing);
    operation();
    same();
  }
  REQUIRE(!book->commit());
  readers_agree();
  verify(true);
  std::printf("book_model_test: %llu transactions, %llu kills, %llu replays, %llu refusals\n",
              static_cast<unsigned long long>(plain.transactions), static_cast<unsigned long long>(kills),
              static_cast<unsigned long long>(replays), static_cast<unsigned long long>(refusals));
}

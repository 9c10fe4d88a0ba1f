#pragma once

#include "actors/identity/node_identity.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/book_check.hpp"
#include "actors/ledger/ledger_reader.hpp"
#include "actors/ledger/sqlite_store.hpp"
#include "actors/ledger/utc_date.hpp"
#include "tests/actors/ledger/record_fixture.hpp"
#include "tests/support/test.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace neuroshard::testing {

/// A clock moved by hand.
struct hand_clock final : time_source {
  // 2026-01-15 00:00:30 UTC: within a minute and a day, at the beginning of neither.
  std::atomic<int64_t> us{1'768'435'230'000'000};
  int64_t unix_us() const override { return us; }
  int64_t steady_us() const override { return us; }
  void advance_s(int64_t seconds) { us += seconds * us_per_second; }
  void advance_days(int64_t days) { us += days * us_per_day; }
};

inline neuro_amount operator""_neuro(const char* text) {
  std::string digits(text);
  std::erase(digits, '\''); // a raw literal keeps its separators
  neuro_amount value;
  REQUIRE(parse_amount(digits, amount_text::string, true, value) == amount_error::ok);
  return value;
}

constexpr const char* friend_address = "0x00000000000000000000000000000000000000f1";
constexpr const char* other_address = "0x00000000000000000000000000000000000000f2";
constexpr const char* architecture = "00112233445566aa";

inline digest digest_of(std::string_view text) {
  return kernels::sha256::of(text);
}

/// A book in a folder of its own, with a wallet and a clock.
struct book_fixture {
  std::string folder;
  std::shared_ptr<hand_clock> clock = std::make_shared<hand_clock>();
  ledger_options options;
  std::unique_ptr<account_book> book;

  book_fixture() {
    char name[] = "/tmp/neuroshard-ledger-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    folder = name;
    auto identity = node_identity::make(*parse_token("correct-horse"), 0, 0);
    REQUIRE(identity);
    options.path = folder + "/ledger.db";
    options.identity = std::make_shared<const node_identity>(std::move(*identity));
    options.clock = clock;
  }
  ~book_fixture() {
    book.reset();
    std::filesystem::remove_all(folder);
  }

  void open() {
    auto made = open_book(options);
    if (!made)
      FAIL(problem_of(made.error()).message);
    book = std::move(*made);
  }
  /// Leaves the open group behind, as a killed process does, and opens again.
  void reopen() {
    book.reset();
    open();
  }

  /// Applies and commits; the operation must succeed.
  template <class Operation>
  auto done(const Operation& what) {
    auto result = book->apply(what);
    if (!result)
      FAIL(problem_of(result.error()).message);
    REQUIRE(!book->commit());
    return std::move(*result);
  }
  /// Applies and commits; the operation must be refused. Nothing may have changed.
  template <class Operation>
  caf::error refused(const Operation& what) {
    const auto seq = book->head().seq;
    const auto before = book->own();
    auto result = book->apply(what);
    REQUIRE(!result);
    const caf::error why = result.error();
    REQUIRE(!book->commit());
    CHECK(book->head().seq == seq);
    CHECK(book->own().available == before.available);
    CHECK(book->own().pending == before.pending);
    return why;
  }

  /// Money to begin with, in the only way there is: proofs of training, matured. The multipliers are 1.1
  /// (training role).
  void fund(neuro_amount at_least) {
    done(note_checkpoint{architecture, digest_of("funds"), 0});
    while (book->own().available < at_least) {
      done(claim(funded_steps, funded_steps + 1, 4'096'000'000ULL, 1'000, digest_of("funds")));
      ++funded_steps;
      clock->advance_s(660);
      REQUIRE(book->run_due());
      REQUIRE(!book->commit());
      if (funded_steps % 90 == 0)
        clock->advance_days(1);
    }
  }
  /// A proof of training and nothing else: steps [begin, end) from the weights `model`, of so many label
  /// tokens, on so many layers without embedding and head. Each call makes another proof, of now.
  work_proof training(uint64_t begin, uint64_t end, uint64_t tokens, uint64_t layers, digest model) {
    auto proof = good_proof(*options.identity, book->chain_id(), architecture, clock->us + 5 * us_per_second);
    char nonce[33];
    std::snprintf(nonce, sizeof nonce, "%032llx", static_cast<unsigned long long>(++proofs_made));
    proof.nonce = nonce;
    proof.uptime_ms = 0;
    proof.label_tokens = tokens;
    proof.steps = end - begin;
    proof.step_begin = begin;
    proof.step_end = end;
    proof.layer_end = layers;
    proof.has_embedding = proof.has_lm_head = false;
    proof.model_hash_start = proof.model_hash_end = model;
    return proof;
  }
  /// What the proof keeper sends for a proof.
  record_proof recorded(const work_proof& proof, std::string refused = {}) const {
    record_proof what;
    what.proof = options.identity->sign_as_node(proof_tag, canonical_payload(proof));
    what.refused = std::move(refused);
    if (proof.steps > 0)
      what.segments = {{proof.model_hash_start.value_or(digest{}), proof.step_begin, proof.step_end}};
    return what;
  }
  record_proof claim(uint64_t begin, uint64_t end, uint64_t tokens, uint64_t layers, digest model) {
    return recorded(training(begin, end, tokens, layers, model));
  }
  std::shared_ptr<ledger_reader> reader() const {
    auto made = ledger_reader::open({options.path, options.identity->address(), clock, options.params, 2});
    REQUIRE(made);
    return *made;
  }
  /// The whole book replayed; every fault fails the test.
  void verify(bool signatures = false) const {
    const auto found = verify_book(options.path, signatures);
    REQUIRE(found);
    for (const auto& fault : found->faults)
      FAIL_CHECK(fault);
  }
  const std::string& me() const { return options.identity->address(); }

  uint64_t funded_steps = 0;
  uint64_t proofs_made = 0;
};

inline std::string reason_of(const caf::error& e) {
  return problem_of(e).reason;
}
inline std::string field_of(const caf::error& e) {
  return problem_of(e).field;
}
template <class T>
T detail_of(const caf::error& e, std::string_view name) {
  for (const auto& [key, value] : problem_of(e).details)
    if (key == name)
      return std::get<T>(value);
  FAIL("no detail of this name");
  return T{};
}

inline request_mark mark_of(std::string_view body, std::string key = {}) {
  return {digest_of("token"), "/api/v1/wallet/send", digest_of(body), std::move(key)};
}

} // namespace neuroshard::testing

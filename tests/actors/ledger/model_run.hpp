#pragma once

#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/actors/ledger/plain_book.hpp"
#include "tests/actors/ledger/receipt_fixture.hpp"

#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace doctest {
template <>
struct StringMaker<unsigned __int128> {
  static String convert(unsigned __int128 atto) { return neuroshard::to_atto_text({atto}).c_str(); }
};
} // namespace doctest

namespace neuroshard::testing {

/// Drives the book and the reference side by side.
struct model_run : book_fixture {
  using u128 = plain_book::u128;
  using hold = plain_book::hold;
  static constexpr u128 unit = plain_book::unit;
  static constexpr uint64_t ids_in_reach = 300; ///< old request ids that are used again

  std::mt19937_64 random;
  plain_book plain, kept; ///< kept: as of the last commit, what a kill leaves
  int64_t head_us = 0;    ///< of the newest transaction that a kill leaves
  uint64_t next_id = 0;
  std::vector<std::string> friends;
  const std::array<node_identity, 2> helpers = {identity_of("helper-one"), identity_of("helper-two")};
  uint64_t doing = 0; ///< the case of `operation`
  uint64_t kills = 0, replays = 0, refusals = 0;

  model_run() {
    if (std::filesystem::exists("/dev/shm")) {
      char name[] = "/dev/shm/neuroshard-ledger-XXXXXX";
      if (::mkdtemp(name) != nullptr) {
        std::filesystem::remove_all(folder);
        folder = name;
        options.path = folder + "/ledger.db";
      }
    }
    for (int n = 0; n < 40; ++n) {
      char text[43];
      std::snprintf(text, sizeof text, "0x%040x", 0xf00 + n);
      friends.emplace_back(text);
    }
  }

  uint64_t below(uint64_t bound) { return random() % bound; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  const std::string& a_friend() { return friends[below(friends.size())]; }
  std::string anybody() { return one_in(3) ? me() : a_friend(); }

  /// Of few tokens, bodies and keys, so that they meet again.
  request_mark some_mark(const char* path) {
    request_mark made;
    made.token = digest_of(one_in(2) ? "token" : "another");
    made.path = path;
    made.body = digest_of("body " + std::to_string(below(40)));
    if (one_in(2))
      made.key = "key " + std::to_string(below(60));
    return made;
  }
  std::optional<request_mark> mark(const char* path) {
    return one_in(2) ? std::optional(some_mark(path)) : std::nullopt;
  }

  void time_moves() { plain.now_us = std::max<int64_t>(plain.now_us, clock->us); }

  /// Applies an operation that carries a mark. `fine`: whether it is possible, unless the same request was
  /// answered before. Answers the result of an operation that was done now.
  template <class Operation>
  auto once(const Operation& what, bool fine) {
    const auto before = what.mark ? plain.look_up(*what.mark) : plain_book::found{};
    auto result = book->apply(what);
    using answer = std::optional<typename decltype(result)::value_type>;
    if (before.key_reused) {
      REQUIRE(!result);
      REQUIRE(reason_of(result.error()) == "key_reused");
      ++refusals;
      return answer();
    }
    if (before.first != nullptr) {
      REQUIRE(result);
      REQUIRE(result->origin.replayed);
      REQUIRE(result->origin.row == before.first->row);
      REQUIRE(result->transaction_id == before.first->result);
      ++replays;
      return answer();
    }
    REQUIRE(static_cast<bool>(result) == fine);
    if (!fine) {
      ++refusals;
      return answer();
    }
    REQUIRE(!result->origin.replayed);
    ++plain.transactions;
    if (what.mark)
      plain.answers.push_back(
          {*what.mark, false, result->transaction_id, result->origin.row, plain.now_us, false});
    return answer(std::move(*result));
  }

  void send(std::optional<request_mark> as);
  void send_twice();
  void reserve();
  void settle();
  void refund();
  void prove();
  void refuse_proof();
  void void_one();
  void offend();
  void drive_others();
  u128 mint(const std::string& proof, u128 full, u128 of_proof);
  digest work_for_other();
  void stake();
  void add_more();
  void extend();
  void unstake();
  void keep();
  void find();
  void deliver();
  void let_time_pass();
  void commit();
  void restart();
  void operation();

  /// A number of a request: mostly new ones are made by `reserve`, here an old one or one never used.
  uint64_t some_id() { return next_id - std::min(next_id, below(ids_in_reach)); }
  static std::string id_of(uint64_t number) { return "inf_" + std::to_string(number); }
  void pay(const std::string& to, u128 amount, hold& by, u128& paid, bool with_receipt = false) {
    if (to != me() && !with_receipt)
      return; // Another wallet's part is burned without a receipt.
    paid += amount;
    if (to != me()) {
      plain.others[to] += amount;
      return;
    }
    plain.available += amount;
    by.earned += amount;
  }

  void same() {
    const auto own = book->own();
    const auto& totals = book->totals();
    REQUIRE(own.available.atto == plain.available);
    REQUIRE(own.staked.atto == plain.staked);
    const u128 pending = plain.pending();
    REQUIRE(own.pending.atto == pending);
    REQUIRE(totals.minted.atto == plain.minted);
    REQUIRE(totals.burned.atto == plain.burned);
    u128 all = plain.available + plain.staked + pending;
    for (const auto& [address, amount] : plain.others)
      all += amount;
    REQUIRE(all == plain.minted - plain.burned);
    REQUIRE(totals.available.atto + totals.staked.atto + totals.pending.atto == all);
    REQUIRE(book->head().seq == plain.transactions);
    REQUIRE(book->open_reservations() == plain.open_holds());
  }
  /// What readers are told of the last commit.
  void readers_agree() {
    const auto at = reader();
    for (const auto& [address, amount] : plain.others)
      REQUIRE(at->balance(address)->available.atto == amount);
    const auto own = at->balance();
    REQUIRE(own);
    REQUIRE(own->available.atto == plain.available);
    REQUIRE(own->pending.atto == plain.pending());
    const auto supply = at->supply();
    REQUIRE(supply);
    REQUIRE(supply->circulating.atto == plain.minted - plain.burned);
    REQUIRE(supply->transactions == plain.transactions);
    REQUIRE(static_cast<bool>(at->stake()->stake) == plain.locked.has_value());
  }
};

} // namespace neuroshard::testing

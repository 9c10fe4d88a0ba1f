#pragma once

#include "actors/ledger/ledger_types.hpp"
#include "actors/ledger/money_rules.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard::testing {

/// The book as one would write it on a napkin: plain numbers and lists, no postings, no store, no groups. A
/// copy of it is what is on disk. It knows nothing of book's code but the stake multiplier, which
/// money_rules_test.cpp compares with values worked out elsewhere.
struct plain_book {
  using u128 = unsigned __int128;
  static constexpr u128 unit = atto_per_neuro;
  static constexpr int64_t second = 1'000'000, minute = 60 * second, day = 86'400 * second;

  struct hold {
    u128 amount = 0, price = 0;
    uint64_t prompt = 0, tokens = 0;
    int64_t expires_us = 0;
    enum { open, settled, refunded } state = open;
    u128 cost = 0, burned = 0, earned = 0;
    std::string end_transaction;
  };
  struct waiting {
    u128 amount = 0;
    int64_t due_us = 0;
    std::string proof; ///< of a reward
  };
  /// A proof that is remembered, to be sent, or voided, again.
  struct proven {
    record_proof what;
    std::string id;
    u128 reward = 0;
    uint64_t steps = 0;
    bool refuted = false;
    u128 burned = 0, matured = 0;
  };
  struct weighed_proof {
    int64_t timestamp_us = 0;
    bool accepted = false;
    std::string id;
  };
  struct offence {
    record_offence what;
    std::string transaction;
    u128 slashed = 0;
  };
  /// What another node did in one generation, counter-signed.
  struct work_of_other {
    std::string address, receipt_id, worker_blob, driver_blob;
    uint64_t work = 0;
  };
  struct lock {
    int32_t start = 0, unlock = 0;
  };
  struct answer {
    request_mark mark;
    bool is_response = false;
    std::string result; ///< transaction id or response
    int64_t row = 0, created_us = 0;
    bool delivered = false;
  };
  /// What may change from one start to the next.
  struct rates {
    int64_t from_us = 0;
    uint64_t fee_bp = 0, burn_bp = 0;
    u128 price = 0;
    friend bool operator==(const rates& a, const rates& b) {
      return a.fee_bp == b.fee_bp && a.burn_bp == b.burn_bp && a.price == b.price;
    }
  };

  int64_t now_us = 0;
  u128 available = 0, staked = 0, minted = 0, burned = 0;
  uint64_t transactions = 0;
  std::map<std::string, u128> others;
  std::map<uint64_t, hold> holds; ///< by number; old ended ones are dropped
  std::vector<waiting> rewards, unstakes;
  uint64_t model = 0; ///< the newest noted checkpoint
  std::vector<bool> paid_steps = std::vector<bool>(steps_of_model);
  bool model_noted = false;
  std::vector<proven> proofs;            ///< the newest
  std::vector<weighed_proof> all_proofs; ///< of two months
  std::vector<offence> offences;         ///< the newest
  std::vector<int64_t> slashes;          ///< when; of two months
  std::map<offence_class, int64_t> last_slash_us;
  std::map<std::pair<uint64_t, std::string>, work_of_other> receipts; ///< by request and wallet
  int64_t last_work_us = 0; ///< of the newest accepted proof or confirmed receipt
  std::map<int32_t, u128> minted_on;
  std::optional<lock> locked;
  std::vector<answer> answers;
  std::vector<rates> in_force;
  int64_t last_minute = -1, last_forget_us = 0;

  static constexpr uint64_t steps_of_model = 4'096;

  int32_t today() const { return static_cast<int32_t>(now_us / day); }
  const rates& now() const {
    const rates* found = &in_force.front();
    for (const auto& each : in_force)
      if (each.from_us <= now_us)
        found = &each;
    return *found;
  }

  u128 pending() const {
    u128 sum = 0;
    for (const auto& [number, each] : holds)
      sum += each.state == hold::open ? each.amount : 0;
    for (const auto* list : {&rewards, &unstakes})
      for (const auto& each : *list)
        sum += each.amount;
    return sum;
  }
  size_t open_holds() const {
    return static_cast<size_t>(std::count_if(
        holds.begin(), holds.end(), [](const auto& each) { return each.second.state == hold::open; }));
  }

  // -- what time brings

  void refund(hold& which) {
    which.state = hold::refunded;
    available += which.amount;
    ++transactions;
  }
  void release(std::vector<waiting>& list) {
    std::erase_if(list, [&](const waiting& each) {
      const bool due = each.due_us <= now_us;
      for (auto& one : proofs)
        one.matured += due && one.id == each.proof ? each.amount : 0;
      available += due ? each.amount : 0;
      transactions += due ? 1 : 0;
      return due;
    });
  }
  void forget() {
    int64_t newest = 0;
    for (const auto& each : answers)
      newest = std::max(newest, each.row);
    std::erase_if(answers, [&](const answer& each) {
      const int64_t life = each.mark.key.empty() ? 120 * second : day;
      // The last row of all stays, so that its number is never given again.
      return each.created_us <= now_us - life && each.row != newest;
    });
    last_forget_us = now_us;
  }
  void run_due() {
    for (auto& [number, each] : holds)
      if (each.state == hold::open && each.expires_us <= now_us)
        refund(each);
    if (now_us / minute != last_minute) {
      release(rewards);
      release(unstakes);
      last_minute = now_us / minute;
    }
    if (now_us - last_forget_us >= minute)
      forget();
  }
  /// A start: whatever is open is given back.
  void start(const rates& with) {
    const int64_t from = in_force.empty() ? 0 : (now_us / minute + 1) * minute;
    if (in_force.empty() || !(in_force.back() == with) || in_force.back().from_us > from) {
      std::erase_if(in_force, [&](const rates& each) { return each.from_us >= from; });
      in_force.push_back({from, with.fee_bp, with.burn_bp, with.price});
    }
    for (auto& [number, each] : holds)
      if (each.state == hold::open)
        refund(each);
    last_minute = -1;
    last_forget_us = 0;
    run_due();
  }

  // -- operations: what they cost, and whether they are possible

  u128 fee(u128 amount) const { return std::max<u128>((amount * now().fee_bp + 9'999) / 10'000, 1); }
  bool can_pay(u128 amount) const { return amount <= available; }
  bool can_lock(u128 amount) const {
    return amount > 0 && staked + amount >= 1'000 * unit && staked + amount <= 10'000'000 * unit &&
           can_pay(amount);
  }
  bool can_unstake(u128 amount) const {
    const bool rest_fits = amount <= staked && (amount == staked || staked - amount >= 1'000 * unit);
    return amount > 0 && rest_fits && (!locked || today() >= locked->unlock);
  }

  /// What the steps that were not paid before are worth, and a minute's part.
  static u128 worth(uint64_t tokens, uint64_t steps, uint64_t fresh, uint64_t layers) {
    return static_cast<u128>(tokens) * fresh / steps * layers * (unit / 2'000) / 4'096;
  }
  static u128 worth_of_uptime(uint64_t ms) { return unit / 10'000 * ms / 60'000; }
  /// All multipliers of a proof, one cut-off after another.
  u128 multiplied(u128 amount, uint64_t tenths_of_role, uint64_t scarcity_ppm,
                  const economics_params& params) {
    amount = amount * rules::stake_multiplier_ppm(params, {staked}) / 1'000'000;
    amount = amount * tenths_of_role / 10;
    std::erase_if(all_proofs, [&](const auto& each) { return each.timestamp_us < now_us - 60 * day; });
    std::erase_if(slashes, [&](int64_t at) { return at < now_us - 60 * day; });
    uint64_t accepted = 0, all = 0, slashed = 0;
    for (const auto& each : all_proofs) {
      const bool counts = each.timestamp_us >= now_us - 30 * day;
      all += counts ? 1 : 0;
      accepted += counts && each.accepted ? 1 : 0;
    }
    for (const int64_t at : slashes)
      slashed += at >= now_us - 30 * day ? 1 : 0;
    if (all >= 100)
      amount = amount * (1'000'000 + 100'000 * accepted / (all + 100 * slashed)) / 1'000'000;
    return amount * scarcity_ppm / 1'000'000;
  }

  /// Takes up to `most` away: staked, cooling, maturing, available. What was taken.
  u128 slash(u128 most) {
    u128 rest = most;
    const auto from = [&](u128& there) {
      const u128 part = std::min(rest, there);
      rest -= part;
      there -= part;
      return part;
    };
    const bool had_stake = staked > 0;
    from(staked);
    if (had_stake && staked == 0)
      locked.reset();
    for (auto* list : {&unstakes, &rewards}) {
      std::stable_sort(list->begin(), list->end(),
                       [](const auto& a, const auto& b) { return a.due_us < b.due_us; });
      for (auto& each : *list)
        from(each.amount);
      std::erase_if(*list, [](const waiting& each) { return each.amount == 0; });
    }
    from(available);
    burned += most - rest;
    ++transactions;
    return most - rest;
  }
  /// What a further part of a proof may be, which has earned so much.
  u128 cap(u128 of_proof) const {
    const auto so_far = minted_on.find(today());
    const u128 today_minted = so_far == minted_on.end() ? 0 : so_far->second;
    return std::min(100 * unit - std::min(100 * unit, of_proof),
                    10'000 * unit - std::min(10'000 * unit, today_minted));
  }

  // -- repeated requests

  struct found {
    bool key_reused = false;
    const answer* first = nullptr;
  };
  found look_up(const request_mark& mark) const {
    const answer* best = nullptr;
    for (const auto& each : answers) {
      const bool same_sender = each.mark.token == mark.token && each.mark.path == mark.path;
      const bool same = mark.key.empty() ? each.mark.key.empty() && each.mark.body == mark.body &&
                                               !each.delivered && each.created_us > now_us - 120 * second
                                         : each.mark.key == mark.key && each.created_us > now_us - day;
      const auto order = [](const answer& of) { return std::pair(of.created_us, of.row); };
      if (same_sender && same && (best == nullptr || order(each) > order(*best)))
        best = &each;
    }
    if (best != nullptr && !mark.key.empty() && best->mark.body != mark.body)
      return {true, nullptr};
    return {false, best};
  }
  void deliver(int64_t row) {
    for (auto& each : answers)
      each.delivered = each.delivered || each.row == row;
  }
};

} // namespace neuroshard::testing

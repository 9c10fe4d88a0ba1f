#pragma once

#include "actors/common/tensor_handle.hpp"
#include "actors/gradient_exchanger/contribution_store.hpp"
#include "actors/gradient_exchanger/error_feedback.hpp"
#include "actors/gradient_exchanger/outer_step.hpp"
#include "actors/gradient_exchanger/round_rules.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace neuroshard {

/// How far the own contribution has come with one member. Times are milliseconds of the steady clock.
struct part_sending {
  uint32_t next = 0; ///< part
  uint32_t attempts = 0;
  int64_t not_before_ms = 0;
  bool ended = false;          ///< the member has all of it, or will not take it, or could not be reached
  std::set<uint32_t> answered; ///< parts that went back to it in replies
};

/// A contribution that is to be fetched from whoever has it.
struct part_fetching {
  std::string author;
  kernels::digest content{};
  std::vector<std::string> sources; ///< in this order, and again from the first
  size_t source = 0;
  int64_t not_before_ms = 0;
  bool under_way = false;
};

/// One unit of this node in the outer loop. Outlives rounds: the hash, the velocity, the residual.
struct held_unit {
  std::string name;
  std::shared_ptr<const unit_layout> layout;
  kernels::digest hash{}; ///< of the weights of outer step `version`
  uint64_t version = 0;
  std::optional<kernels::digest> previous_hash; ///< of the outer step before
  unit_values velocity;                         ///< empty: zero
  error_feedback residual;

  // Of the round under way.
  std::vector<tensor_handle> w0;  ///< empty: nobody else holds the unit
  std::vector<tensor_handle> w_h; ///< after the inner steps; empty: nothing to contribute
  std::set<std::string> cohort;   ///< the others
  std::set<std::string> training; ///< members seen to train in this round
  contribution_store store;
  std::optional<kernels::digest> own; ///< content hash of the own contribution
  std::map<std::string, part_sending> sends;
  std::vector<part_fetching> fetches;
  std::optional<exchange_window> window;
  std::vector<std::string> order;        ///< of collectors
  std::set<std::string> not_among;       ///< members that say this node is no member
  std::map<std::string, delta_set> sets; ///< heard, by collector
  std::optional<delta_set> chosen;
  int64_t chosen_ms = 0;
  std::optional<outer_kind> outcome;
  unit_values w; ///< the new weights, once there is an outcome
  unit_values v;
  uint32_t contributions = 0;
  uint64_t tokens = 0;

  void now_at(const kernels::digest& new_hash, uint64_t new_version) {
    if (version + 1 == new_version)
      previous_hash = hash;
    else if (version != new_version)
      previous_hash.reset();
    hash = new_hash;
    version = new_version;
  }
  /// Somebody else may contribute.
  bool shared() const noexcept { return !cohort.empty() && !w0.empty(); }
  /// Forgets the round; hash, velocity and residual stay.
  void end_round(bool clear_residual) {
    held_unit kept;
    kept.name = std::move(name);
    kept.layout = std::move(layout);
    kept.hash = hash;
    kept.version = version;
    kept.previous_hash = previous_hash;
    kept.velocity = std::move(velocity);
    if (!clear_residual)
      kept.residual = std::move(residual);
    *this = std::move(kept);
  }
};

} // namespace neuroshard

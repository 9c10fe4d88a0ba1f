#pragma once

#include "tests/simulation/round_node.hpp"

#include <map>
#include <string>

namespace neuroshard::simulation {

/// What a Byzantine node does to its contributions on their way out.
enum class lie : uint8_t { nan, scaling, reversal, replay, two_things, garbage, other_hash };
inline constexpr size_t lies = 7;
const char* to_string(lie what) noexcept;

/// Lies for one node, whose own exchanger is honest and does not know.
class round_liar {
public:
  round_liar(std::shared_ptr<const node_identity> by, lie what, dice random)
      : by_(std::move(by)), what_(what), random_(random) {}

  /// Changes a manifest and the part that goes with it, on the way to a node.
  void change(const std::string& to, signed_blob& manifest, delta_part& part);

private:
  struct forged {
    signed_blob manifest;
    delta_part part;
  };
  forged forge(const delta_manifest& honest, const delta_part& part);

  std::shared_ptr<const node_identity> by_;
  lie what_;
  dice random_;
  std::map<std::string, forged> first_; ///< by unit, as sent in its first round
  std::map<std::string, forged> made_;  ///< by unit, round and, where it says two things, whom
};

} // namespace neuroshard::simulation

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

namespace neuroshard {

/// Who sends contributions that fail deterministic checks (spec/training.md section 7): three in a row from
/// one node, and it is ignored for 10 rounds. A failed statistical check is no event here. Remembers at most
/// 4,096 nodes: those without a failure are forgotten at once, then the one longest unheard of. Owned by one
/// actor.
class exchange_reputation {
public:
  static constexpr uint32_t failures_max = 3;
  static constexpr uint64_t ignored_rounds = 10;
  static constexpr size_t nodes_max = 4'096;

  /// A contribution passed all deterministic checks.
  void passed(const std::string& node_id);
  /// A contribution of that round failed one. True when the node is ignored from now on: log it.
  bool failed(const std::string& node_id, uint64_t round);
  /// Whether contributions of that round are ignored: of the 10 rounds after the third failure.
  bool ignored(const std::string& node_id, uint64_t round) const;
  /// Failures in a row, for /peers.
  uint32_t failures(const std::string& node_id) const;
  size_t size() const noexcept { return nodes_.size(); }

private:
  struct standing {
    uint32_t failures = 0;
    uint64_t ignored_to = 0; ///< last round ignored; 0: none
    uint64_t heard = 0;      ///< round
  };
  std::unordered_map<std::string, standing> nodes_;
};

} // namespace neuroshard

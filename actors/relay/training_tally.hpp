#pragma once

#include "actors/relay/work_tally.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace neuroshard {

/// What this node computed as a stage of another node's pipeline, from BIND to RELEASE: label tokens and
/// steps that were committed (spec/economics.md section 8). Plain logic; owned by one actor; a stage serves
/// one session at a time, so one is kept. Calls that the layer worker refused are not told.
class training_tally {
public:
  static constexpr size_t open_steps_max = 16; ///< begun and neither committed nor discarded

  /// `driver` has bound this stage: what was counted before is forgotten.
  void bind(const forward_request& call, const std::string& driver, int64_t now_unix_ms);
  /// A micro-batch ran forward. `last`: the route ends here.
  void train(const forward_request& call, bool last);
  void commit(const std::string& session, uint64_t step);
  void discard(const std::string& session, uint64_t step);
  /// The receipt of the session for the driver that bound it, the same again when it is asked for again.
  /// Nothing: another's, or no step was committed.
  std::optional<signed_blob> release(const std::string& session, const std::string& driver,
                                     const node_identity& by, random_source& random, int64_t now_unix_ms);

private:
  bool bound_to(const std::string& session) const {
    return !what_.work_id.empty() && what_.work_id == session;
  }

  receipt what_;                      ///< its work id is the session's; empty: nobody has bound this stage
  std::map<uint64_t, uint64_t> open_; ///< label tokens by step
  std::optional<signed_blob> ended_;
};

} // namespace neuroshard

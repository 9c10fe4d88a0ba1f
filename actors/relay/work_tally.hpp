#pragma once

#include "actors/common/clock.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/ledger/receipt.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace neuroshard {

/// The receipt of what has ended, made out to `driver` and signed by `by`; nothing, and a line in the log,
/// where it cannot be made.
std::optional<signed_blob> seal_receipt(receipt& what, const std::string& driver, const node_identity& by,
                                        random_source& random, int64_t now_unix_ms);

/// What this node computed in the inference sessions of other nodes, until one ends and a receipt tells of it
/// (spec/economics.md section 8). Plain logic; owned by one actor. A session that nobody ends is forgotten:
/// its work stays unpaid.
class work_tally {
public:
  static constexpr size_t sessions_max = 8'192;        ///< beyond them the one longest idle goes
  static constexpr int64_t forgotten_us = 300'000'000; ///< after the last word of a session, ended or not

  /// Counts the rows that succeeded here: positions of a generation that a row names. `last`: the route ends
  /// here, so the head ran where the call asks for it.
  void count(const forward_request& call, const std::vector<row_reply>& rows, bool last, int64_t now_us,
             int64_t now_unix_ms);
  /// Receipts, signed by `by`, of the sessions that the call closes; `driver` is who closes them. The same
  /// one again for one that the same driver closed before.
  std::vector<signed_blob> end(const forward_request& call, const std::string& driver,
                               const node_identity& by, random_source& random, int64_t now_unix_ms);
  void forget_idle(int64_t now_us);
  size_t size() const noexcept { return sessions_.size(); }

private:
  /// A session id and a range of layers own one cache.
  using key = std::tuple<std::string, uint32_t, uint32_t>;
  struct session {
    receipt what;
    int64_t used_us = 0;
    std::optional<signed_blob> ended; ///< its receipt, made out to `what.driver_node_id`
  };

  session& session_of(const forward_request& call, const session_row& row, int64_t now_us,
                      int64_t now_unix_ms);

  std::map<key, session> sessions_;
};

} // namespace neuroshard

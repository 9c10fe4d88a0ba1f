#pragma once

#include "actors/ledger/ledger_types.hpp"
#include "actors/ledger/receipt.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// The driver's own count of a generation: what was sent to each node in each session, what of it came to
/// tokens, and which receipts it has for that (spec/economics.md sections 7 and 8). Plain logic; one for each
/// generation.
class route_work {
public:
  /// A call with so many positions goes along the route. `layers`: of the model.
  void sent(const std::string& session_id, const model_route& route, uint32_t layers, uint64_t model_version,
            uint64_t positions);
  /// So many positions more are part of the answer; the route computed them in that session.
  void done(const std::string& session_id, const model_route& route, uint64_t positions);
  /// What was done until now is not charged.
  void begin_charge();

  /// What the receipt of a node for a session may claim; nothing: none is due, or there is one.
  std::optional<receipt_terms> terms_of(const std::string& work_id, const std::string& session_id,
                                        const std::string& node_id) const;
  /// The book has it: what it claims may be paid.
  void recorded(const std::string& session_id, const std::string& node_id, const countersigned_receipt& from);

  /// Whose shares of a settlement these are: `wallet` is this node's. What has no receipt in the book has no
  /// address, so that its part is burned.
  void bill(settle_inference& to, const std::string& wallet) const;

private:
  /// What of a receipt a settlement is made of.
  struct paid_by {
    std::string id; ///< 64 hex
    std::string wallet;
    uint64_t work = 0; ///< layers x tokens
    bool head = false;
  };
  /// A session at one node. This node itself has one entry for all sessions, with an empty id.
  struct part {
    std::string session_id;
    std::string node_id;
    bool own = false; ///< of this wallet: paid without a receipt
    uint32_t layer_begin = 0;
    uint32_t layer_end = 0;
    bool embedding = false;
    bool head = false;
    uint64_t model_version = 0;
    uint64_t sent = 0; ///< positions
    uint64_t done = 0; ///< layers x tokens, since the charge began
    std::optional<paid_by> receipt;
  };
  part& at(const std::string& session_id, const route_hop& hop, bool own);
  const part* find(const std::string& session_id, const std::string& node_id) const;

  std::vector<part> parts_;  ///< in the order in which they came to be
  std::string head_session_; ///< with `head_node_`: what sampled the last token; both empty: this node
  std::string head_node_;
};

} // namespace neuroshard

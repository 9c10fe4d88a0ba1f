#pragma once

#include "actors/common/clock.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/relay/driver_receipts.hpp"
#include "actors/relay/relay_actor.hpp"
#include "actors/relay/training_tally.hpp"
#include "actors/relay/work_link_actor.hpp"
#include "actors/relay/work_tally.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace neuroshard {

/// Who is known, and who hears what is published; a part of the peer manager's interface.
using peer_directory_actor =
    caf::typed_actor<caf::replies_to<peers_atom>::with<peer_list_ptr>, caf::reacts_to<publish_sink>>;

struct relay_options {
  std::string node_id;
  size_t calls_max = 256; ///< under way at once
};

/// What the relay works with.
struct relay_parts {
  layer_worker_actor worker;
  peer_directory_actor peers; ///< may be null: every hop is this node
  work_link_actor link;       ///< may be null: alone
  time_source_ptr time;
  receipt_book_actor book = {};                            ///< may be null: no receipts are kept
  std::shared_ptr<const node_identity> identity = nullptr; ///< null: no receipts are made
  random_source_ptr random = system_random();
};

struct relay_state {
  static inline const char* name = "relay";
  using pointer = relay_actor::stateful_pointer<relay_state>;
  using forward_promise = caf::typed_response_promise<routed_forward_reply>;
  using backward_promise = caf::typed_response_promise<routed_backward_reply>;

  pointer self = nullptr;
  relay_options options;
  relay_parts parts;
  peer_list_ptr known; ///< a second old at most
  work_tally tally;    ///< with `training`: for other nodes alone
  training_tally training;
  size_t calls = 0;
  bool draining = false;

  caf::result<routed_forward_reply> forward(routed_forward& call);
  void forwarded(std::shared_ptr<routed_forward> call, forward_promise promise, forward_reply& here);
  void send_on(std::shared_ptr<routed_forward> call, forward_promise promise, forward_reply& here,
               std::vector<signed_blob> receipts);
  /// Counts what was computed for another node; the receipts of the sessions that end with the call.
  std::vector<signed_blob> count_work(const routed_forward& call, const forward_reply& here);
  std::vector<signed_blob> count_training(const routed_backward& call);
  void on_tick();
  void keep_receipt(record_receipt what);
  void receipt_handed_back(const published& what);
  caf::result<routed_backward_reply> backward(routed_backward& call);
  void computed(std::shared_ptr<routed_backward> call, backward_promise promise, backward_reply& here);

  caf::error refuse_call(const connection_end& from, size_t hops, int64_t deadline_us) const;
  /// Where a hop is, as its own signed record says: what a caller says of others is not believed.
  void find(const work_hop& hop, std::function<void(caf::expected<peer_address>)> then);
  const peer_info* known_peer(const std::string& node_id) const;
  void learn(std::function<void()> then);
  /// Time for the next hop: what is left, less 20 ms for each hop of the route received.
  uint32_t budget_ms(int64_t deadline_us, size_t hops) const;
  actor_status report() const;
};

/// Scheduled; computes nothing. Copies activations only where a row of several failed.
relay_actor::behavior_type relay(relay_state::pointer self, relay_options options, relay_parts parts);

} // namespace neuroshard

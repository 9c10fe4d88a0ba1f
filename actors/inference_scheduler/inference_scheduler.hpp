#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/inference_scheduler/batch_plan.hpp"
#include "actors/inference_scheduler/generation.hpp"
#include "actors/inference_scheduler/hop_watch.hpp"
#include "actors/inference_scheduler/inference_scheduler_actor.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/ledger/ledger_actor.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/relay/driver_receipts.hpp"
#include "actors/relay/relay_actor.hpp"
#include "actors/relay/work_link_actor.hpp"
#include "kernels/text/tokenizer.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace neuroshard {

struct inference_options {
  uint32_t max_queue = 64;
  uint32_t timeout_s = 120;
  bool charge_self = false;
  uint32_t batch_max = 32;      ///< generations that are computed at once
  uint32_t prefill_chunk = 512; ///< positions of one PREFILL call
  uint32_t context = 2048;
  uint32_t layers = 0; ///< of the model
  std::string architecture_id;
  std::string address;                       ///< this node's wallet, paid for the work it does itself
  kernels::dtype wire = kernels::dtype::f32; ///< of activations between stages
};

/// Ways through the model, and how they did; a part of the peer manager's interface.
using route_source_actor =
    caf::typed_actor<caf::replies_to<route_request>::with<model_route>, caf::reacts_to<hop_outcome>>;

/// What the scheduler works with.
struct inference_parts {
  layer_worker_actor worker; ///< asked about its serving copies; all work goes through the relay
  relay_actor relay;         ///< the first hop of a route that begins here
  work_link_actor link;      ///< to nodes directly; may be null: every route begins here
  ledger_actor ledger;
  route_source_actor peers;
  text::tokenizer tokens;
  time_source_ptr time;
  random_source_ptr random;
  counters_ptr counters;
  driver_receipts receipts = {};
};

/// Generations with the same route and version of the weights: computed together.
struct route_batch {
  std::vector<generation_ptr> prefilling; ///< the group whose prompts go in now
  std::vector<generation_ptr> running;
  bool prefill_in_flight = false;
  bool decode_in_flight = false;
};

struct inference_scheduler_state {
  static inline const char* name = "inference_scheduler";
  using pointer = inference_scheduler_actor::stateful_pointer<inference_scheduler_state>;
  using admission_promise = caf::typed_response_promise<generation_admitted>;

  pointer self = nullptr;
  inference_options options;
  inference_parts parts;
  std::map<std::string, generation_ptr> all;
  uint32_t admitting = 0;
  std::deque<generation_ptr> waiting;
  std::map<std::string, route_batch> batches; ///< by batch_key; each with a prefill and a decode under way
  hop_watch watch;
  bool pump_pending = false;              ///< a pump_atom is in the mailbox
  uint64_t kv_blocks = 0;                 ///< of the worker's pool; 0: not known
  std::map<uint64_t, std::string> hashes; ///< of serving copies, the newest few
  std::vector<caf::typed_response_promise<caf::unit_t>> drains;
  bool draining = false;
  int64_t drain_until_us = 0;

  /// Tells the readers of what was not finished: the scheduler may be ended to be started anew. What is
  /// reserved for them comes back when it expires.
  ~inference_scheduler_state();

  // admission (scheduler_admission.cpp)
  caf::result<generation_admitted> admit(const generation_request& request);
  caf::expected<generation_ptr> make_generation(const generation_request& request);
  void copy_known(generation_ptr g, admission_promise promise, const serving_info& copy);
  void route_known(generation_ptr g, admission_promise promise, model_route route);
  void admitted(generation_ptr g, admission_promise promise);
  void not_admitted(admission_promise promise, caf::error why);

  // batches (scheduler_batches.cpp)
  void pump_soon();
  void pump();
  size_t at_work() const;
  void choose_prefill_groups();
  void send_prefill(const std::string& key, route_batch& batch);
  void prefill_answered(const std::string& key, const prefill_plan& plan, const routed_forward_reply& reply);
  void send_decode(const std::string& key, route_batch& batch);
  void decode_answered(const std::string& key, const std::vector<generation_ptr>& rows,
                       const routed_forward_reply& reply);
  bool take_token(const generation_ptr& g, int32_t token, double logprob);
  work_header header_of(const std::vector<generation_ptr>& rows, request_class what,
                        uint32_t positions) const;
  using answer = std::function<void(const routed_forward_reply&)>;
  using failure = std::function<void(const caf::error&)>;
  void send_along(const model_route& route, forward_request call, answer well, failure badly);

  // hops that fail (scheduler_failover.cpp)
  void call_failed(const std::vector<generation_ptr>& rows, const caf::error& why, request_class what);
  using failed_nodes = std::set<std::string>;
  void row_failed(const generation_ptr& g, row_status status, const std::string& node, failed_nodes& failed);
  void hops_failed(const failed_nodes& nodes, request_class what);
  void hops_answered(const model_route& route, const routed_forward_reply& reply, request_class what,
                     int64_t sent_us, uint32_t positions);
  void rebuild(const generation_ptr& g, bool needs_room);
  void renew_session(const generation_ptr& g);
  void fail_over(const generation_ptr& g, const std::string& node, const caf::error& why);
  void leave_hops(const failed_nodes& nodes);
  void ask_route(const generation_ptr& g);
  void wait_for_route(const generation_ptr& g, const caf::error& why);
  void new_route(const generation_ptr& g, uint64_t model_version, model_route route);
  void take_route(const generation_ptr& g, uint64_t model_version, model_route route);
  bool usable(const model_route& route) const;
  void set_route(generation& g, uint64_t model_version, model_route route) const;
  void close_session(const generation_ptr& g, const std::string& except = {});
  void close_hop(const generation_ptr& g, const route_hop& hop, const forward_request& call);

  // money (scheduler_payment.cpp)
  void pay(generation_ptr g, bool free);
  void settle(const generation_ptr& g);
  void session_closed(const generation_ptr& g, const route_hop& hop, const std::string& session_id,
                      const std::vector<signed_blob>& receipts);
  void receipt_done(const generation_ptr& g);
  void charge_rest(const generation_ptr& g, std::function<void()> then);

  // ends (inference_scheduler.cpp)
  void finish(generation_ptr g, std::string reason, std::optional<caf::error> failure);
  void paid(generation_ptr g, neuro_amount cost);
  void hash_known(const generation_ptr& g, std::string hash);
  void note_latency(const generation_result& result);
  void deliver(const generation_ptr& g);
  void stop(const generation_ptr& g, caf::error why);
  void cancel(const std::string& id, bool unheard);
  void on_tick();
  void update_gauges();
  actor_status report() const;
};

/// Scheduled; never blocks. `parts.peers` and `parts.ledger` may be null where nothing is charged and all
/// layers are here.
inference_scheduler_actor::behavior_type inference_scheduler(inference_scheduler_state::pointer self,
                                                             inference_options options,
                                                             inference_parts parts);

} // namespace neuroshard

#include "gateway/node/actor_setup.hpp"

#include "actors/peer_manager/peer_store.hpp"
#include "actors/supervisor/supervisor_actor.hpp"
#include "gateway/grpc/link.hpp"
#include "gateway/http/bridge.hpp"

#include <caf/actor_system.hpp>

namespace neuroshard {

actor_setup::actor_setup(int64_t threads) {
  add_message_types<caf::id_block::neuroshard_common>();
  add_message_types<caf::id_block::neuroshard_status>();
  add_message_types<caf::id_block::neuroshard_ledger>();
  add_message_types<caf::id_block::neuroshard_layer_worker>();
  add_message_types<caf::id_block::neuroshard_checkpointer>();
  add_message_types<caf::id_block::neuroshard_checkpoint_stream>();
  add_message_types<caf::id_block::neuroshard_trainer>();
  add_message_types<caf::id_block::neuroshard_inference_scheduler>();
  add_message_types<caf::id_block::neuroshard_telemetry>();
  add_message_types<caf::id_block::neuroshard_rate_limiter>();
  add_message_types<caf::id_block::neuroshard_peer_manager>();
  add_message_types<caf::id_block::neuroshard_peer_store>();
  add_message_types<caf::id_block::neuroshard_peer_link>();
  add_message_types<caf::id_block::neuroshard_grpc_link>();
  add_message_types<caf::id_block::neuroshard_relay>();
  add_message_types<caf::id_block::neuroshard_work_link>();
  add_message_types<caf::id_block::neuroshard_gradient_exchanger>();
  add_message_types<caf::id_block::neuroshard_exchange_link>();
  add_message_types<caf::id_block::neuroshard_proof_keeper>();
  add_message_types<caf::id_block::neuroshard_supervisor>();
  add_message_types<caf::id_block::neuroshard_http>();
  // Work-stealing threads look for work at intervals of up to 10 ms when there was none for a while: as long
  // would the next token of a chain of nodes wait. Threads that share one queue are woken.
  set("scheduler.policy", caf::atom("sharing"));
  set("scheduler.max-threads", static_cast<size_t>(threads));
}

} // namespace neuroshard

#pragma once

#include "actors/checkpointer/training_state.hpp"
#include "actors/common/actor_status.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// The CHECKPOINTER: checkpoint directories. Writes them beside training (atomic, checksummed,
/// self-describing), prunes them, finds the newest sound one at start and sets damaged ones aside by name.
namespace neuroshard {

/// Starts to write a checkpoint of the layer worker's present weights. Answered as soon as the view is open
/// and training may go on; `checkpoint_saved` or `checkpoint_failed` follows to the sender of the request.
struct save_checkpoint {
  training_state state;
  std::string reason; ///< "step", "outer", "stop", "first", "time", "resync"
};
struct save_begun {
  uint64_t inner_step = 0;
  bool started = false; ///< false: one was still being written; this request was dropped (never with reason
                        ///< "stop", "first", "outer", "resync")
};
struct checkpoint_saved {
  std::string id; ///< directory name
  uint64_t inner_step = 0;
  uint64_t outer_step = 0;
  std::string model_hash; ///< 64 hex, f32 masters
  uint64_t bytes = 0;
  double seconds = 0;
};
struct checkpoint_failed {
  uint64_t inner_step = 0;
  std::string message;
};

/// Finds the newest sound checkpoint that fits the architecture and writes its tensors into the layer worker.
struct restore_latest {};
struct restored {
  bool found = false;
  std::string id;
  training_state state;   ///< `taken_over` also where nothing was found
  std::string model_hash; ///< 64 hex, f32 masters of this checkpoint
  /// The outer loop has the weights that the round began with, of every unit: the round can go on.
  bool has_round_base = false;
  std::vector<std::string> set_aside; ///< damaged ones, renamed to <name>.damaged
};

struct checkpoint_info {
  std::string id;
  uint64_t inner_step = 0;
  uint64_t outer_step = 0;
  int64_t unix_us = 0;
  uint64_t bytes = 0;
};
using checkpoint_list = std::vector<checkpoint_info>;

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_checkpointer, caf::first_custom_type_id + 300)
CAF_ADD_TYPE_ID(neuroshard_checkpointer, (neuroshard::save_checkpoint))
CAF_ADD_TYPE_ID(neuroshard_checkpointer, (neuroshard::save_begun))
CAF_ADD_TYPE_ID(neuroshard_checkpointer, (neuroshard::checkpoint_saved))
CAF_ADD_TYPE_ID(neuroshard_checkpointer, (neuroshard::checkpoint_failed))
CAF_ADD_TYPE_ID(neuroshard_checkpointer, (neuroshard::restore_latest))
CAF_ADD_TYPE_ID(neuroshard_checkpointer, (neuroshard::restored))
CAF_ADD_TYPE_ID(neuroshard_checkpointer, (neuroshard::checkpoint_list))
CAF_ADD_ATOM(neuroshard_checkpointer, neuroshard, list_atom, "list")
CAF_END_TYPE_ID_BLOCK(neuroshard_checkpointer)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::save_checkpoint)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::save_begun)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::checkpoint_saved)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::checkpoint_failed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::restore_latest)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::restored)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::checkpoint_list)

namespace neuroshard {

using checkpointer_actor = caf::typed_actor<
    // Begins a checkpoint; the outcome follows as a message to the sender.
    caf::replies_to<save_checkpoint>::with<save_begun>,
    // Loads the newest sound checkpoint into the layer worker.
    caf::replies_to<restore_latest>::with<restored>,
    // What is on disk, newest first.
    caf::replies_to<list_atom>::with<checkpoint_list>,
    // Answers once nothing is being written any more.
    caf::replies_to<drain_atom>::with<void>, caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard

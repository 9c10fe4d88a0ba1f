#pragma once

#include "actors/common/actor_status.hpp"
#include "actors/common/tensor_handle.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// The GRADIENT EXCHANGER: the outer loop (DiLoCo; spec/training.md section 4). Keeps the weights that a
/// round began with, makes this node's pseudo-gradients of them, exchanges contributions with the other
/// holders of each unit, validates, collects, aggregates the agreed set and takes the outer step. The trainer
/// tells it where rounds begin and end; it never changes weights while inner steps are taken.
namespace neuroshard {

/// A round begins: the worker's weights are those of outer step `base`, and no step has been taken since. The
/// weights are kept as w0 where anybody else holds a unit at the same version and hash; with nobody else
/// there is nothing to keep. Answered when inner steps may begin.
struct begin_round {
  uint64_t base = 0;
};

/// Inner steps of the round are over on this node's stage, released or not bound; the weights stand still
/// until the answer.
struct finish_round {
  uint64_t round = 0;  ///< the outer step to be formed: base + 1
  bool drives = false; ///< this node is a driver that reached H: RoundEnd is published unless it was heard
  uint32_t inner_steps = 0; ///< committed by this node's stage in the round; 0: nothing to contribute
  uint64_t batches = 0;
  uint64_t tokens = 0; ///< label tokens
  double loss = 0;     ///< mean inner loss
};

enum class round_end_kind : uint8_t {
  alone,   ///< nobody else in any cohort: the weights are w_H
  updated, ///< weights of at least one unit were set to those of the outer step
  resync,  ///< this node lost touch with its cohort: weights and velocity are to be fetched
};
struct round_outcome {
  uint64_t round = 0;
  round_end_kind how = round_end_kind::alone;
  bool weights_changed = false; ///< the worker holds other weights than before: serving copies are to be made
  uint32_t members = 1;         ///< most contributions in a unit's set
  uint64_t tokens = 0;          ///< label tokens of the contributions of the set, largest over units
};

/// To the trainer: a driver's RoundEnd counts, so inner steps are to end and finish_round is due.
struct round_ends {
  uint64_t round = 0;
};
using round_listener = caf::typed_actor<caf::reacts_to<round_ends>>;

/// What a checkpoint keeps of the outer loop: f32 tensors in host memory named diloco.v/, diloco.r/ and
/// diloco.w0/ before the parameter's name (spec/model.md section 10); those of a unit that are all zero, or
/// not held, are left out.
struct outer_tensor {
  std::string name;
  tensor_handle value;
};
struct outer_tensors {
  std::vector<outer_tensor> tensors;
};
/// Asks for them. They do not change while no finish_round is under way.
struct read_outer_state {};
/// Replaces them all: resume, and resync (then without diloco.r/, which clears the residuals). The round
/// under way, if any, is forgotten. The next begin_round takes w0 from here where all of a unit is given: the
/// worker holds weights of the middle of that round. Refusal: invalid_request naming the tensor;
/// failed_precondition while finish_round is under way.
struct restore_outer_state {
  std::vector<outer_tensor> tensors;
};

/// ExchangeGradient of the gRPC page, as the actors see it.
enum class exchange_result : uint8_t {
  accepted = 1,
  stale_round = 2,
  base_mismatch = 3,
  invalid_values = 4,
  duplicate = 5,
  not_a_member = 6,
  not_held = 7
};
struct exchange_request {
  connection_end from; ///< filled in by the receiver's gateway
  std::optional<signed_blob> manifest;
  uint32_t part = 0;
  std::shared_ptr<const std::string> part_data; ///< serialized DeltaPart; null in a fetch
  bool want_reply = false;
  std::optional<kernels::digest> fetch; ///< content hash of a contribution wanted
};
struct exchange_reply {
  exchange_result result = exchange_result::accepted;
  std::string message;
  uint64_t current_round = 0;
  std::optional<kernels::digest> unit_hash;
  std::optional<signed_blob> reply_manifest;
  uint32_t reply_part = 0;
  std::shared_ptr<const std::string> reply_data; ///< null past the last part
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_gradient_exchanger, caf::first_custom_type_id + 1'300)
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::begin_round))
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::finish_round))
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::round_outcome))
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::round_ends))
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::exchange_request))
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::exchange_reply))
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::read_outer_state))
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::restore_outer_state))
CAF_ADD_TYPE_ID(neuroshard_gradient_exchanger, (neuroshard::outer_tensors))
CAF_END_TYPE_ID_BLOCK(neuroshard_gradient_exchanger)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::read_outer_state)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::restore_outer_state)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::outer_tensors)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::begin_round)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::finish_round)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::round_outcome)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::round_ends)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::exchange_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::exchange_reply)

namespace neuroshard {

/// What checkpoints keep of the outer loop; a part of the exchanger's interface.
using outer_state_actor = caf::typed_actor<caf::replies_to<read_outer_state>::with<outer_tensors>,
                                           caf::replies_to<restore_outer_state>::with<void>>;

using gradient_exchanger_actor = caf::typed_actor<
    // Where rounds begin and end, told by the trainer.
    caf::replies_to<begin_round>::with<void>, caf::replies_to<finish_round>::with<round_outcome>,
    // What checkpoints keep of it.
    caf::replies_to<read_outer_state>::with<outer_tensors>, caf::replies_to<restore_outer_state>::with<void>,
    // What other members ask.
    caf::replies_to<exchange_request>::with<exchange_reply>,
    // RoundEnd and DeltaSet, as the peer manager hears them.
    caf::reacts_to<published>, caf::reacts_to<tick_atom>, caf::replies_to<drain_atom>::with<void>,
    caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard

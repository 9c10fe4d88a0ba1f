#pragma once

#include "actors/common/actor_status.hpp"

#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

/// The PROOF KEEPER: once a minute makes a proof of this node's work, judges it by the same checks as anybody
/// else's, and has the ledger record it, which pays for it (spec/economics.md section 9).
CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_proof_keeper, caf::first_custom_type_id + 980)
CAF_ADD_ATOM(neuroshard_proof_keeper, neuroshard, round_ended_atom, "round")
CAF_END_TYPE_ID_BLOCK(neuroshard_proof_keeper)

namespace neuroshard {

using proof_keeper_actor = caf::typed_actor<
    // From the trainer: the steps so far ended a round. A proof made now lets the next one begin with known
    // weights, which is what a spot-check needs.
    caf::reacts_to<round_ended_atom>,
    // Internal: is a proof due?
    caf::reacts_to<tick_atom>, caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard

#pragma once

#include "actors/common/actor_status.hpp"
#include "actors/common/error.hpp"
#include "actors/ledger/ledger_types.hpp"

#include <caf/replies_to.hpp>
#include <caf/typed_actor.hpp>
#include <caf/unit.hpp>

namespace neuroshard {

/// Internal: ends the current group of operations with one fsync and answers its callers.
struct commit_group {};
/// Internal: the group that was being committed is on disk, or failed.
struct group_written {};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_ledger, caf::first_custom_type_id + 100)
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::send_neuro))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::send_result))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::stake_neuro))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::add_stake))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::extend_stake))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::stake_result))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::unstake_neuro))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::unstake_result))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::reserve_inference))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::reserve_result))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::settle_inference))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::settle_result))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::refund_inference))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::refund_result))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::note_checkpoint))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::checkpoint_noted))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::find_response))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::found_response))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::keep_response))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::mark_delivered))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::get_ledger_status))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::ledger_status))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::record_proof))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::proof_result))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::keep_commitment))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::commitment_kept))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::record_receipt))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::receipt_recorded))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::record_offence))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::offence_result))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::commit_group))
CAF_ADD_TYPE_ID(neuroshard_ledger, (neuroshard::group_written))
CAF_END_TYPE_ID_BLOCK(neuroshard_ledger)

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::send_neuro)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::send_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::stake_neuro)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::add_stake)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::extend_stake)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::stake_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::unstake_neuro)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::unstake_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::reserve_inference)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::reserve_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::settle_inference)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::settle_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::refund_inference)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::refund_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::note_checkpoint)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::checkpoint_noted)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::find_response)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::found_response)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::keep_response)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::mark_delivered)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::get_ledger_status)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::ledger_status)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::record_proof)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::proof_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::keep_commitment)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::commitment_kept)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::record_receipt)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::receipt_recorded)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::record_offence)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::offence_result)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::commit_group)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::group_written)

namespace neuroshard {

/// The LEDGER: the one writer of the node's book. Spawned detached (it blocks on the disk); works undetached
/// too. Every answer below comes only after what it tells is on disk; many operations share one fsync. A
/// refusal changes nothing. Reads need no message: they go to a `ledger_reader` directly.
using ledger_actor = caf::typed_actor<
    // Sends from the node's wallet.
    caf::replies_to<send_neuro>::with<send_result>,
    // Staking of the node's wallet.
    caf::replies_to<stake_neuro>::with<stake_result>, caf::replies_to<add_stake>::with<stake_result>,
    caf::replies_to<extend_stake>::with<stake_result>, caf::replies_to<unstake_neuro>::with<unstake_result>,
    // Payment of one inference: reserved, then settled or refunded, exactly once.
    caf::replies_to<reserve_inference>::with<reserve_result>,
    caf::replies_to<settle_inference>::with<settle_result>,
    caf::replies_to<refund_inference>::with<refund_result>,
    // Minting for training done here.
    caf::replies_to<note_checkpoint>::with<checkpoint_noted>,
    caf::replies_to<keep_commitment>::with<commitment_kept>,
    caf::replies_to<record_proof>::with<proof_result>,
    // Work done for and by others, and offences.
    caf::replies_to<record_receipt>::with<receipt_recorded>,
    caf::replies_to<record_offence>::with<offence_result>,
    // Duplicate suppression of HTTP requests.
    caf::replies_to<find_response>::with<found_response>,
    caf::replies_to<keep_response>::with<found_response>, caf::reacts_to<mark_delivered>,
    // Health and counters.
    caf::replies_to<get_ledger_status>::with<ledger_status>, caf::replies_to<status_atom>::with<actor_status>,
    // Ends the open group, answers its callers, closes the database. Every later operation is refused with
    // `draining`.
    caf::replies_to<drain_atom>::with<void>,
    // Internal: expiries, maturities, releases.
    caf::reacts_to<tick_atom>,
    // Internal.
    caf::reacts_to<commit_group>, caf::reacts_to<group_written>>;

} // namespace neuroshard

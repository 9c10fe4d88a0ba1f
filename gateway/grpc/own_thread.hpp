#pragma once

#include <caf/actor_control_block.hpp>
#include <caf/message.hpp>
#include <caf/message_id.hpp>

namespace neuroshard::rpc {

/// Sends an actor a message and lets what it wakes run on this thread, before it returns: a scheduled actor
/// that waits, and those it wakes in turn. What runs elsewhere already, or is detached, runs there. For
/// gRPC's threads, where waking one of CAF's would cost more than what the actor has to do; nothing may be
/// locked. What takes longer than a moment goes on on CAF's threads.
void send_and_run(const caf::strong_actor_ptr& to, caf::strong_actor_ptr from, caf::message_id id,
                  caf::message what);

} // namespace neuroshard::rpc

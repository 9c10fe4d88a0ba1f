#pragma once

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/type_id.hpp>

#include "actors/common/error.hpp"

#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

// A request that only succeeds is `replies_to<X>::with<void>` in all interfaces: its handler returns void or
// caf::result<void>, its promise is made with make_response_promise<void>() and delivered with deliver(), its
// caller writes `.then([] {}, on_error)`. (In CAF 0.17.6 `with<caf::unit_t>` answers with an empty message
// that a callback taking unit_t does not match.)

/// What every actor answers to `status_atom`: how it is, in words for people and programs.
struct actor_status {
  enum class health : uint8_t { ok, degraded, error };
  std::string name;
  health state = health::ok;
  std::string message;                                     ///< why it is not ok; empty otherwise
  std::vector<std::pair<std::string, std::string>> values; ///< queue lengths, counts, versions
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_status, caf::first_custom_type_id + 10)
CAF_ADD_TYPE_ID(neuroshard_status, (neuroshard::actor_status))
CAF_ADD_ATOM(neuroshard_status, neuroshard, status_atom, "status")
CAF_ADD_ATOM(neuroshard_status, neuroshard, tick_atom, "tick")
/// Asks an actor to come to a clean end: finish or give back what it holds, then answer. It stays alive until
/// its exit message.
CAF_ADD_ATOM(neuroshard_status, neuroshard, drain_atom, "drain")
CAF_END_TYPE_ID_BLOCK(neuroshard_status)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::actor_status)

#pragma once

#include "actors/common/actor_status.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <string>

/// The RATE LIMITER: sliding windows of request times, per identity and class of endpoint.
namespace neuroshard {

enum class limit_class : uint8_t { status, inference, wallet, health, auth_failures };

/// Requests per 60 s; 0 is unlimited.
struct rate_limits {
  uint32_t status = 100;
  uint32_t inference = 60;
  uint32_t wallet = 10;
  uint32_t health = 600;
  uint32_t auth_failures = 30;
};

/// Asks for one request. `identity` is a token digest or a client address, made by the gateway. `peek` looks
/// without counting.
struct admit_request {
  std::string identity;
  limit_class of = limit_class::status;
  bool peek = false;
};
/// A refused request has not been counted.
struct admit_verdict {
  bool allowed = true;
  uint32_t limit = 0; ///< 0: unlimited, no headers
  uint32_t remaining = 0;
  uint32_t reset_s = 0;       ///< until the window is empty again
  uint32_t retry_after_s = 0; ///< at least 1 when refused
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_rate_limiter, caf::first_custom_type_id + 700)
CAF_ADD_TYPE_ID(neuroshard_rate_limiter, (neuroshard::rate_limits))
CAF_ADD_TYPE_ID(neuroshard_rate_limiter, (neuroshard::admit_request))
CAF_ADD_TYPE_ID(neuroshard_rate_limiter, (neuroshard::admit_verdict))
CAF_END_TYPE_ID_BLOCK(neuroshard_rate_limiter)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::rate_limits)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::admit_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::admit_verdict)

namespace neuroshard {

using rate_limiter_actor = caf::typed_actor<
    // Counts a request, or refuses it.
    caf::replies_to<admit_request>::with<admit_verdict>,
    // Changes the limits (SIGHUP).
    caf::replies_to<rate_limits>::with<void>,
    // Internal: forgets identities that have gone quiet.
    caf::reacts_to<tick_atom>, caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard

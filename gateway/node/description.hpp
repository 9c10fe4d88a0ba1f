#pragma once

#include "actors/identity/node_identity.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/telemetry/snapshot.hpp"
#include "gateway/config/node_config.hpp"
#include "kernels/core/backend.hpp"
#include "kernels/model/architecture.hpp"

namespace neuroshard {

/// What a node that holds the whole model says of itself.
node_description describe(const node_identity& who, const node_config& c, const model::architecture& a,
                          const kernels::device& on);
/// What it shows before telemetry has asked anybody.
node_snapshot first_snapshot(const node_identity& who, const node_config& c, const model::architecture& a,
                             const kernels::device& on, int64_t unix_us);

} // namespace neuroshard

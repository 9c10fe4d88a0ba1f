#pragma once

#include <caf/actor_system_config.hpp>

#include <cstdint>

namespace neuroshard {

/// CAF's configuration of this process: every message type of the actors, and the size of its scheduler.
struct actor_setup : caf::actor_system_config {
  explicit actor_setup(int64_t threads);
};

} // namespace neuroshard

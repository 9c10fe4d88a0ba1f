#pragma once

#include "gateway/config/node_config.hpp"

#include <algorithm>

namespace neuroshard {

/// How `cpu_threads` is shared out. Compute gets them all: actors and HTTP need a core for moments only, and
/// take it from compute by the kernel's scheduler, which is cheaper than to leave a core idle for them.
struct thread_budget {
  int64_t compute = 1;
  int64_t actors = 1;
  int64_t http = 1;
};

inline thread_budget share_threads(const node_config& c, const machine_facts& machine) {
  const int64_t all = effective_cpu_threads(c, machine);
  thread_budget b;
  b.compute = c.threads.compute > 0 ? c.threads.compute : all;
  b.actors = c.threads.actors > 0 ? c.threads.actors : std::clamp<int64_t>(all / 4, 1, 4);
  b.http = c.threads.http > 0 ? c.threads.http : std::clamp<int64_t>(all / 4, 1, 4);
  return b;
}

} // namespace neuroshard

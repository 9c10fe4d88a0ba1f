#pragma once

#include "gateway/config/command_line.hpp"
#include "gateway/config/daemon.hpp"
#include "gateway/config/load_config.hpp"
#include "gateway/node/start_again.hpp"

#include <optional>

namespace neuroshard {

/// Makes the parts of a node in the order in which they need each other, runs it until a signal ends it, and
/// takes it down again in the order of network.md section 7. Returns the exit code. `given` is read again on
/// SIGHUP; `daemon` waits for word of the start. A node that takes over another architecture is taken down
/// and the program started again, as `start` says.
int run_node(command_line given, loaded_config loaded, std::optional<daemon_child> daemon,
             const process_start& start);

} // namespace neuroshard

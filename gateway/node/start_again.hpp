#pragma once

#include <string>
#include <vector>

namespace neuroshard {

/// How this process was started: taken before anything changes directory, used to start the program anew in
/// the same process (same pid, terminal and service) when its model becomes another.
struct process_start {
  std::vector<std::string> arguments; ///< with the program's name
  std::string directory;              ///< empty: unknown
  static process_start of(int argc, char** argv);
};

/// Replaces the process image; every file and thread of the node must be closed by now. Returns only when
/// that fails, with the reason.
std::string start_again(const process_start& how);

} // namespace neuroshard

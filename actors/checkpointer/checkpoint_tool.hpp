#pragma once

#include <iosfwd>
#include <span>
#include <string>

namespace neuroshard {

/// `neuroshard checkpoint list|verify PATH`: PATH is one checkpoint, a folder of checkpoints, or a folder of
/// such folders (the `checkpoints` directory of a node). `args` are the words after "checkpoint". `list`
/// prints one line a checkpoint, `verify` reads every byte and says of each whether it is sound and if not,
/// why. Exit codes: 0 all is well, 1 wrong arguments, 3 unreadable or damaged. Changes nothing on disk.
int run_checkpoint_tool(std::span<const std::string> args, std::ostream& out, std::ostream& err);

} // namespace neuroshard

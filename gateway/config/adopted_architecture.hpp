#pragma once

#include "gateway/config/node_config.hpp"
#include "gateway/config/start_error.hpp"
#include "kernels/model/architecture.hpp"

#include <optional>
#include <string>

/// The architecture that a node with `model.preset = "auto"` has taken over from the network it joined: a
/// file in the data directory, read at each start (spec/model.md section 5).
namespace neuroshard {

std::string adopted_architecture_path(const std::string& data_dir);
/// Nothing where there is none. A file that is damaged, or names a shape that the kernels cannot run, is an
/// error of exit code 3.
start_result<std::optional<model::architecture>> read_adopted_architecture(const std::string& data_dir);
start_result<done> write_adopted_architecture(const std::string& data_dir, const model::architecture& what);

/// The defaults of a node that runs this shape: those of the preset that has it, else the global ones.
/// `model.preset` stays "auto".
node_config default_config_of(const model::architecture& adopted);

} // namespace neuroshard

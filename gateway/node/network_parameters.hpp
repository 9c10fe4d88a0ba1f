#pragma once

#include "gateway/config/node_config.hpp"

#include <string>

namespace neuroshard {

/// The network parameters of spec/training.md section 3 as canonical JSON (keys ascending, no blanks): what
/// all nodes of a cohort must have in common. They travel with the layer map.
std::string network_parameters(const node_config& c);

} // namespace neuroshard

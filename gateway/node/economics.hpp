#pragma once

#include "actors/ledger/economics_params.hpp"
#include "gateway/config/node_config.hpp"
#include "gateway/config/start_error.hpp"

namespace neuroshard {

/// The ledger's parameters from the configuration's `[economics]`. The configuration has checked kinds and
/// ranges of each key; the rules between them are checked here (exit code 1).
start_result<economics_params> economics_from(const node_config& c);

} // namespace neuroshard

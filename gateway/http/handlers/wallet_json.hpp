#pragma once

#include "actors/ledger/ledger_types.hpp"
#include "gateway/http/json.hpp"

namespace neuroshard::http {

/// {amount, duration_days, start_date, unlock_date, multiplier}.
void write_stake_state(json_writer& out, const stake_state& s);
/// Parts per million as a factor.
double multiplier(uint64_t ppm);

} // namespace neuroshard::http

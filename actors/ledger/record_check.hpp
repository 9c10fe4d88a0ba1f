#pragma once

#include "actors/ledger/sqlite.hpp"

#include <cstdint>
#include <functional>
#include <string>

namespace neuroshard {

/// Checks the receipts and offences of a book: each receipt's bytes against its id and against what is
/// written beside them, each offence against its evidence and its slash. `signatures`: those of the receipts
/// too, as they were when they came. `add` is told of each fault, one sentence. Answers how many offences
/// were slashed for.
uint64_t check_receipts_and_offences(sqlite::connection& db, bool signatures,
                                     const std::function<void(std::string)>& add);

} // namespace neuroshard

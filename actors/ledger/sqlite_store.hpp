#pragma once

#include "actors/ledger/ledger_store.hpp"

#include <memory>
#include <string>

namespace neuroshard {

/// Opens (or makes) ledger.db: WAL, synchronous = FULL, foreign keys on, tables up to date. Refusals as
/// open_book's.
caf::expected<std::unique_ptr<ledger_store>> open_sqlite_store(const std::string& path);

} // namespace neuroshard

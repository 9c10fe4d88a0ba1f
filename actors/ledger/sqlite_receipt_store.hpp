#pragma once

#include "actors/ledger/receipt_store.hpp"
#include "actors/ledger/sqlite.hpp"

#include <memory>

namespace neuroshard {

/// The part of the SQLite store that keeps receipts and offences, on the connection of the rest.
std::unique_ptr<receipt_store> make_sqlite_receipt_store(sqlite::connection& db);

/// The receipt in a worker's SignedBlob that the book has kept; nothing when an edit of the file has broken
/// it.
std::optional<receipt> kept_receipt(sqlite::blob worker_blob);

} // namespace neuroshard

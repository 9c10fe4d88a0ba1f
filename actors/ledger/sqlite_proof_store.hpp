#pragma once

#include "actors/ledger/proof_store.hpp"
#include "actors/ledger/sqlite.hpp"

#include <memory>

namespace neuroshard {

/// The part of the SQLite store that keeps proofs and epochs, on the connection of the rest.
std::unique_ptr<proof_store> make_sqlite_proof_store(sqlite::connection& db);

} // namespace neuroshard

#pragma once

#include "actors/ledger/sqlite.hpp"

namespace neuroshard {

/// The version of the tables this program writes.
inline constexpr int64_t ledger_schema_version = 5;

/// Makes the tables in an empty database, or brings an older one up to date, in one transaction. Refusals:
/// failed_precondition with reason `newer_version`; data_loss when the file is some other database; storage.
caf::error migrate_schema(sqlite::connection& db);

/// For readers: the version must be ours. Refusals as above, and failed_precondition with reason
/// `older_version`, not_found for an empty database.
caf::error check_schema(sqlite::connection& db);

} // namespace neuroshard

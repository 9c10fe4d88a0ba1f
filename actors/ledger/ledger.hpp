#pragma once

#include "actors/common/clock.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/ledger/economics_params.hpp"
#include "actors/ledger/ledger_actor.hpp"

#include <caf/fwd.hpp>
#include <caf/spawn_options.hpp>

#include <memory>
#include <string>

namespace neuroshard {

class account_book;

struct ledger_options {
  std::string path; ///< ledger.db
  std::string network = "main";
  economics_params params;
  std::shared_ptr<const node_identity> identity;
  time_source_ptr clock;
  uint32_t group_operations_max = 4'096; ///< operations that share one fsync at most
};

/// Opens or makes the book: migrates, checks it, refunds open reservations, runs what is due. Errors (exit
/// code 3 at start): storage (unreadable, read-only, disk full, locked), data_loss (corrupt, broken chain or
/// invariant), failed_precondition (reasons `newer_version`, `other_wallet`, `other_network`). Blocks.
caf::expected<std::unique_ptr<account_book>> open_book(const ledger_options& options);

/// Spawns the actor around an open book. `detached` in production; tests pass false.
ledger_actor spawn_ledger(caf::actor_system& system, std::unique_ptr<account_book> book,
                          const ledger_options& options, bool detached = true);

} // namespace neuroshard

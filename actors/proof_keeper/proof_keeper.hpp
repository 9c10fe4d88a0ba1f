#pragma once

#include "actors/common/clock.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/ledger/ledger_actor.hpp"
#include "actors/ledger/ledger_reader.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/proof_keeper/proof_checks.hpp"
#include "actors/proof_keeper/proof_keeper_actor.hpp"
#include "actors/trainer/trainer_actor.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

struct proof_keeper_options {
  economics_params params;
  kernels::digest chain_id{};
  std::string architecture_id;       ///< 16 hex
  uint64_t num_layers = 0;           ///< of the model
  std::function<held_layers()> held; ///< by this node, now. Any thread, quick
};

/// What the proof keeper works with.
struct proof_keeper_parts {
  std::shared_ptr<const node_identity> identity;
  trainer_actor trainer;
  ledger_actor ledger;
  peer_manager_actor peers; ///< may be null: alone
  std::shared_ptr<const ledger_reader> book;
  time_source_ptr time;
  random_source_ptr random;
};

struct proof_keeper_state {
  static inline const char* name = "proof_keeper";
  using pointer = proof_keeper_actor::stateful_pointer<proof_keeper_state>;

  /// A proof in the making.
  struct draft {
    int64_t now_us = 0;
    int64_t uptime_us = 0;
    neuro_amount staked;
    std::vector<digest> receipts;
    std::vector<recent_proof> recent; ///< own proofs of the last hour
    uint64_t tokens_per_minute = 0;   ///< the most this node was seen to train; 0: not measured
    uint64_t tokens_per_step = 0;
    offered_work work;
  };

  pointer self = nullptr;
  proof_keeper_options options;
  proof_keeper_parts parts;
  int64_t started_us = 0;
  int64_t last_us = 0;        ///< time of the newest proof
  int64_t not_before_us = 0;  ///< of a steady clock: there was nothing to tell of
  bool at_work = false;       ///< a draft is under way
  uint64_t counted_epoch = 0; ///< in which the replicas were last counted
  uint64_t scarcity_now_ppm = 1'000'000;
  uint64_t scarcity_ppm = 1'000'000; ///< of the epoch before
  uint64_t recorded = 0;
  std::string error; ///< why the last attempt failed; empty otherwise

  /// Whether a proof may be made now: one a minute, after enough uptime, never before an earlier one's time.
  bool due(int64_t now_us, int64_t since_last_us) const;
  void attempt(int64_t since_last_us);
  void ask_progress(std::shared_ptr<draft> made);
  void ask_work(std::shared_ptr<draft> made);
  void finish(std::shared_ptr<draft> made);
  void record(std::shared_ptr<draft> made, const work_proof& proof, signed_blob blob);
  void failed(std::string why);
  void count_replicas();
  actor_status report() const;
};

/// To be spawned detached: it reads the book.
proof_keeper_actor::behavior_type proof_keeper(proof_keeper_state::pointer self, proof_keeper_options options,
                                               proof_keeper_parts parts);

} // namespace neuroshard

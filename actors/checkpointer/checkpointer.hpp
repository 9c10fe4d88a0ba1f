#pragma once

#include "actors/checkpointer/checkpoint_folder.hpp"
#include "actors/checkpointer/checkpoint_reader.hpp"
#include "actors/checkpointer/checkpoint_writer.hpp"
#include "actors/checkpointer/checkpointer_actor.hpp"
#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/common/error.hpp"
#include "actors/gradient_exchanger/gradient_exchanger_actor.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"

#include <caf/actor.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

struct checkpointer_options {
  std::string folder; ///< `checkpoints/<wallet id>-<instance>` of the data directory
  std::string wallet_id;
  std::string software; ///< "neuroshard 0.1.0"
  model::architecture architecture;
  std::string tokenizer_path;
  std::string tokenizer_hash; ///< 64 hex
  uint32_t keep = 5;
  uint64_t max_storage_mb = 0; ///< 0: 10 % of the free disk
  outer_state_actor outer;     ///< whose state goes into checkpoints and comes back; null: none
};

struct checkpointer_state {
  static inline const char* name = "checkpointer";
  using pointer = checkpointer_actor::stateful_pointer<checkpointer_state>;

  /// A checkpoint that is being written.
  struct saving {
    save_checkpoint request;
    caf::strong_actor_ptr asked_by;
    caf::typed_response_promise<save_begun> promise;
    snapshot_opened view;
    std::vector<outer_tensor> outer; ///< written after the worker's
    std::optional<checkpoint_writer> writer;
    size_t next = 0; ///< index of the tensor that is read
    int64_t since_us = 0;
  };
  /// A checkpoint that is being loaded, or looked for.
  struct loading {
    caf::typed_response_promise<restored> promise;
    std::vector<tensor_entry> expected;
    std::vector<folder_entry> candidates;
    size_t candidate = 0;
    uint64_t newest_line = 0; ///< of all candidates
    std::optional<checkpoint_reader> reader;
    std::vector<outer_tensor> outer;
    size_t next = 0;
    bool touched = false; ///< some weights were overwritten by a checkpoint that then turned out damaged
    restored outcome;
  };

  checkpointer_options options;
  layer_worker_actor worker;
  time_source_ptr time;
  counters_ptr counters;
  std::optional<saving> save;
  std::deque<saving> waiting;             ///< requests that must not be dropped
  std::map<uint64_t, std::string> hashes; ///< of the newest few that were written, by inner step
  std::optional<loading> load;
  std::optional<caf::typed_response_promise<restored>> load_waiting; ///< until nothing is written any more
  std::vector<caf::typed_response_promise<caf::unit_t>> drains;
  std::string last_id;
  std::string last_failure; ///< empty after a success
  uint64_t unfinished = 0;  ///< tells temporary directories apart

  // saving
  caf::result<save_begun> begin_save(pointer self, const save_checkpoint& request);
  void open_view(pointer self);
  void view_opened(pointer self, const snapshot_opened& view);
  void begin_writing(pointer self);
  kernels::status write_outer_tensors();
  void read_next(pointer self);
  void tensor_read(pointer self, const tensor_handle& tensor);
  void resolve_hashes(training_state& state) const;
  void finish_save(pointer self);
  void fail_save(pointer self, const std::string& why);
  void end_save(pointer self);
  // loading
  caf::result<restored> begin_load(pointer self);
  void load_now(pointer self, caf::typed_response_promise<restored> promise);
  void try_next_candidate(pointer self);
  kernels::status open_candidate(const std::string& id);
  void load_next(pointer self);
  kernels::status read_outer_tensors();
  void restore_outer(pointer self);
  void candidate_failed(const std::string& id, const kernels::status& why);
  void end_load(caf::error why);

  checkpoint_list list() const;
  actor_status report() const;
};

/// Detached in production: it hashes, reads and writes files in its handlers. One tensor is in memory at a
/// time.
checkpointer_actor::behavior_type checkpointer(checkpointer_state::pointer self, checkpointer_options options,
                                               layer_worker_actor worker, time_source_ptr time,
                                               counters_ptr counters);

} // namespace neuroshard

#pragma once

#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "actors/checkpointer/partial_stream.hpp"
#include "actors/common/clock.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

struct checkpoint_receiver_options {
  std::string folder; ///< of its own, in the data directory
  model::architecture architecture;
  std::string tokenizer_hash;  ///< 64 hex; empty: any is taken, by a node that has none yet
  uint64_t max_storage_mb = 0; ///< 0: 10 % of the free disk
  uint32_t chunk_bytes = 0;    ///< asked for; 0: the most
  uint32_t silence_ms = static_cast<uint32_t>(stream_silence_ms);
  /// Who may upload: a node of the same wallet, or a member of the cohort of a unit held here. Thread safe.
  std::function<bool(const std::string& node_id)> same_wallet = [](const std::string&) { return false; };
  std::function<bool(const std::string& node_id, const std::string& unit)> cohort_member =
      [](const std::string&, const std::string&) { return false; };
};

struct checkpoint_receiver_parts {
  checkpoint_link_actor link;
  time_source_ptr time;
  random_source_ptr random;
};

struct checkpoint_receiver_state {
  static inline const char* name = "checkpoint_receiver";
  using pointer = checkpoint_receiver_actor::stateful_pointer<checkpoint_receiver_state>;

  /// A fetch, one at a time; others wait.
  struct fetching {
    fetch_units request;
    caf::typed_response_promise<fetched_units> promise;
    size_t candidate = 0;
    unsigned attempts = 0;    ///< at this candidate, since something came of it
    uint64_t download_id = 0; ///< of the call under way; 0: none
    bool wants_data = false;  ///< it is to bring more than the manifest
    std::optional<signed_blob> blob;
    std::optional<partial_stream> partial;
    uint64_t received_before = 0; ///< when the call began
    caf::error fault;             ///< what is wrong with what the candidate sent
    std::vector<std::string> refused;
  };
  struct upload {
    std::string peer;
    std::string checkpoint_id;
    partial_stream partial;
    int64_t used_us = 0;
  };
  struct held_stream {
    stored_stream stream;
    int64_t used_us = 0;
  };
  /// The weights of a stream on their way into a worker.
  struct writing {
    uint64_t fetch_id = 0;
    layer_worker_actor to;
    uint64_t optimizer_step = 0;
    std::vector<std::string> names;
    size_t next = 0;
    caf::typed_response_promise<caf::unit_t> promise;
  };

  checkpoint_receiver_options options;
  checkpoint_receiver_parts parts;
  std::optional<fetching> fetch;
  std::deque<fetching> waiting;
  std::map<uint64_t, held_stream> held;
  std::map<uint64_t, upload> uploads;
  uint64_t next_id = 1;
  uint64_t received_bytes = 0;
  bool draining = false;

  // fetching (checkpoint_fetch.cpp)
  caf::result<fetched_units> begin_fetch(pointer self, fetch_units& request);
  void ask_candidate(pointer self);
  void ask(pointer self, bool manifest_only);
  void call_ended(pointer self, uint64_t download_id, bool manifest_only, const caf::error& why);
  caf::error manifest_came();
  caf::error take_part(const checkpoint_part& part);
  void candidate_broke(pointer self, const caf::error& why);
  void next_candidate(pointer self, const caf::error& why);
  void stream_is_here(pointer self);
  void end_fetch(pointer self, caf::expected<fetched_units> outcome);
  caf::result<tensor_handle> read(const read_fetched& request);
  caf::result<void> write(pointer self, const write_fetched& request);
  void write_next(pointer self, const std::shared_ptr<writing>& job);
  void drop(uint64_t fetch_id);

  // uploads (checkpoint_receiver.cpp)
  caf::result<upload_begun> begin(const begin_upload& request);
  caf::result<void> take(const upload_chunk& request);
  caf::result<put_checkpoint_reply> end(const end_upload& request);
  /// Makes room for the rest of a stream. Refusal: overloaded with reason `storage`.
  caf::error make_room(const transfer_manifest& manifest);
  bool in_use(const std::string& directory) const;
  void tidy();
  actor_status report() const;

private:
  caf::error check_wanted(const transfer_manifest& manifest) const;
  std::optional<stored_stream> find_stored();
  fetched_units describe(stored_stream stream, const std::string& from);
  caf::error may_upload(const std::string& node_id, const transfer_manifest& manifest) const;
};

/// Detached in production: it hashes and writes files in its handlers, a chunk at a time.
checkpoint_receiver_actor::behavior_type checkpoint_receiver(checkpoint_receiver_state::pointer self,
                                                             checkpoint_receiver_options options,
                                                             checkpoint_receiver_parts parts);

} // namespace neuroshard

#pragma once

#include "actors/checkpointer/checkpoint_source.hpp"
#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "actors/common/clock.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

namespace neuroshard {

struct checkpoint_server_options {
  std::string folder; ///< of the checkpointer
  model::architecture architecture;
  std::string tokenizer_hash; ///< 64 hex
  int64_t idle_ms = stream_silence_ms;
  /// Whether a node is of this node's wallet. Thread safe.
  std::function<bool(const std::string& node_id)> same_wallet = [](const std::string&) { return false; };
};

struct checkpoint_server_state {
  static inline const char* name = "checkpoint_server";
  using pointer = checkpoint_server_actor::stateful_pointer<checkpoint_server_state>;

  /// A request whose bytes are being read through.
  struct opening {
    open_checkpoint request;
    std::string id; ///< directory
    checkpoint_source source;
    caf::typed_response_promise<checkpoint_opened> promise;
  };
  struct stream {
    std::string peer; ///< empty: this node
    std::string id;
    checkpoint_source source;
    uint32_t chunk_bytes = 0;
    int64_t used_us = 0;
  };
  /// A manifest that was made before: of the same directory and the same parts it is the same.
  struct known_manifest {
    std::string key;
    int64_t created_unix_us = 0;
    signed_blob blob;
  };

  checkpoint_server_options options;
  std::shared_ptr<const node_identity> who;
  time_source_ptr time;
  std::deque<opening> openings;
  std::map<uint64_t, stream> streams;
  std::deque<known_manifest> known;
  uint64_t next_stream = 1;
  uint64_t served_bytes = 0;
  uint64_t served_streams = 0;
  bool draining = false;
  std::vector<std::byte> piece;

  caf::result<checkpoint_opened> open(pointer self, open_checkpoint& request);
  void verify_next(pointer self);
  caf::result<checkpoint_chunk> read(const read_chunk& request);
  void close_idle();
  actor_status report() const;

private:
  caf::error check(const checkpoint_wish& what, const connection_end& from) const;
  caf::expected<std::pair<std::string, checkpoint_reader>> find(const checkpoint_wish& what);
  caf::expected<checkpoint_opened> begin(const open_checkpoint& request, const std::string& id,
                                         checkpoint_source& source, const signed_blob& manifest);
  caf::error damaged(const std::string& id, const kernels::status& why);
  static std::string key_of(const std::string& id, const checkpoint_wish& what);
};

/// Detached in production: it reads files in its handlers, a few MiB a message, so that streams take turns.
checkpoint_server_actor::behavior_type checkpoint_server(checkpoint_server_state::pointer self,
                                                         checkpoint_server_options options,
                                                         std::shared_ptr<const node_identity> who,
                                                         time_source_ptr time);

} // namespace neuroshard

#pragma once

#include "actors/checkpointer/checkpoint_server.hpp"
#include "actors/checkpointer/checkpoint_stream_actor.hpp"

#include <caf/typed_event_based_actor.hpp>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::test {

/// Checkpoint streams between the nodes of one process. Addresses are those of the nodes' records.
struct checkpoint_network {
  std::map<std::string, checkpoint_server_actor> servers; ///< by host:port
  /// Looks at, and may change, what a peer sends; false breaks the connection there.
  std::function<bool(const std::string& address, signed_blob&)> on_manifest;
  std::function<bool(const std::string& address, checkpoint_chunk&)> on_chunk;
  std::vector<std::string> calls; ///< "<address> <offset, or manifest>" in order
};
using checkpoint_network_ptr = std::shared_ptr<checkpoint_network>;

struct network_checkpoint_link_state {
  using pointer = checkpoint_link_actor::stateful_pointer<network_checkpoint_link_state>;

  struct download {
    std::string address;
    checkpoint_download what;
    checkpoint_server_actor from;
    uint64_t stream_id = 0;
    uint64_t offset = 0;
    caf::typed_response_promise<checkpoint_download_end> promise;
  };
  using download_ptr = std::shared_ptr<download>;

  checkpoint_network_ptr network;
  std::string own_id;

  static caf::error broken() { return refuse(errc::unavailable, "The connection broke."); }

  caf::result<checkpoint_download_end> begin(pointer self, peer_call<checkpoint_download>& call) {
    const auto at = network->servers.find(call.to.address);
    if (at == network->servers.end())
      return broken();
    const auto job = std::make_shared<download>();
    job->address = call.to.address;
    job->what = std::move(call.what);
    job->from = at->second;
    job->offset = job->what.what.offset;
    job->promise = self->make_response_promise<checkpoint_download_end>();
    network->calls.push_back(job->address + (job->what.what.manifest_only
                                                 ? " manifest"
                                                 : " " + std::to_string(job->what.what.offset)));
    open_checkpoint request{job->what.what, {}};
    request.from.node_id = own_id;
    if (network->on_manifest) // who changes a manifest does not mind what it is called
      request.what.checkpoint_id.clear();
    self->request(job->from, caf::infinite, std::move(request))
        .then([this, self, job](checkpoint_opened& opened) { this->opened(self, job, opened); },
              [job](caf::error& why) { job->promise.deliver(std::move(why)); });
    return job->promise;
  }
  void opened(pointer self, const download_ptr& job, checkpoint_opened& opened) {
    job->stream_id = opened.stream_id;
    if (network->on_manifest && !network->on_manifest(job->address, opened.manifest))
      return end(job, broken());
    checkpoint_part part;
    part.download_id = job->what.download_id;
    part.manifest = std::move(opened.manifest);
    hand_on(self, job, std::move(part), job->what.what.manifest_only);
  }
  void hand_on(pointer self, const download_ptr& job, checkpoint_part part, bool last) {
    self->request(job->what.sink, caf::infinite, std::move(part))
        .then([this, self, job, last] { last ? end(job, {}) : next(self, job); },
              [this, job](caf::error& why) { end(job, std::move(why)); });
  }
  void next(pointer self, const download_ptr& job) {
    self->request(job->from, caf::infinite, read_chunk{job->stream_id, job->offset})
        .then(
            [this, self, job](checkpoint_chunk& chunk) {
              job->offset += chunk.data->size();
              const bool last = chunk.last;
              if (network->on_chunk && !network->on_chunk(job->address, chunk))
                return end(job, broken());
              hand_on(self, job, {job->what.download_id, std::nullopt, std::move(chunk)}, last);
            },
            [this, job](caf::error& why) { end(job, std::move(why)); });
  }
  void end(const download_ptr& job, caf::error why) {
    if (job->stream_id != 0)
      caf::anon_send(job->from, close_checkpoint{job->stream_id});
    if (why)
      job->promise.deliver(std::move(why));
    else
      job->promise.deliver(checkpoint_download_end{job->offset - job->what.what.offset});
  }
};

/// The link of node `own_id`; downloads alone.
inline checkpoint_link_actor::behavior_type
network_checkpoint_link(network_checkpoint_link_state::pointer self, checkpoint_network_ptr network,
                        std::string own_id) {
  self->state.network = std::move(network);
  self->state.own_id = std::move(own_id);
  return {
      [self](peer_call<checkpoint_download>& call) { return self->state.begin(self, call); },
      [](const peer_call<checkpoint_upload>&) -> caf::result<put_checkpoint_reply> {
        return refuse(errc::unavailable, "This network carries no uploads.");
      },
  };
}

} // namespace neuroshard::test

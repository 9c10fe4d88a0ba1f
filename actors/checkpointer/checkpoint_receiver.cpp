#include "actors/checkpointer/checkpoint_receiver.hpp"

#include "actors/common/error.hpp"
#include "actors/common/kernel_error.hpp"
#include "actors/common/log.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>

namespace neuroshard {

namespace {

constexpr int64_t kept_us = int64_t{3'600} * 1'000'000; ///< of what is broken off, and of what nobody reads
constexpr size_t stored_streams_max = 4;
constexpr auto tidy_every = std::chrono::seconds(30);

caf::error no_upload(errc code, const char* reason, std::string message) {
  problem what;
  what.message = std::move(message);
  what.reason = reason;
  return refuse(code, std::move(what));
}

std::string partial_directory(const std::string& folder, const transfer_manifest& manifest) {
  return folder + "/" + kernels::to_hex(manifest.sha256) + std::string(partial_suffix);
}

} // namespace

bool checkpoint_receiver_state::in_use(const std::string& directory) const {
  if (fetch && fetch->partial && fetch->partial->directory() == directory)
    return true;
  return std::any_of(uploads.begin(), uploads.end(),
                     [&](const auto& one) { return one.second.partial.directory() == directory; }) ||
         std::any_of(held.begin(), held.end(),
                     [&](const auto& one) { return one.second.stream.directory() == directory; });
}

caf::error checkpoint_receiver_state::make_room(const transfer_manifest& manifest) {
  std::error_code error;
  if (auto made = make_directories(options.folder); !made.ok())
    return refuse(made);
  const auto disk = std::filesystem::space(options.folder, error);
  if (error)
    return refuse(errc::storage, "cannot look at " + options.folder + ": " + error.message());
  const auto own = partial_directory(options.folder, manifest);
  const auto own_ready = ready_directory(options.folder, manifest);
  uint64_t used = 0, had = 0;
  auto ready = list_streams(options.folder, ready_suffix);
  for (const auto& one : list_streams(options.folder, partial_suffix))
    (one.path == own ? had : used) += one.bytes;
  for (const auto& one : ready)
    if (one.path != own_ready)
      used += one.bytes;
  const uint64_t limit =
      std::min<uint64_t>(stream_bytes_max, options.max_storage_mb != 0 ? options.max_storage_mb * 1'000'000
                                                                       : (disk.available + used + had) / 10);
  // What was stored and nobody reads gives way, oldest first.
  for (const auto& one : ready)
    if (used + manifest.total_bytes > limit && one.path != own_ready && !in_use(one.path)) {
      (void)remove_tree(one.path);
      used -= std::min(used, one.bytes);
    }
  const uint64_t rest = manifest.total_bytes - std::min(had, manifest.total_bytes);
  if (used + manifest.total_bytes > limit || rest > disk.available)
    return no_upload(errc::overloaded, "storage", "There is no room for the checkpoint on this disk.");
  return {};
}

caf::error checkpoint_receiver_state::may_upload(const std::string& node_id,
                                                 const transfer_manifest& manifest) const {
  if (node_id.empty() || options.same_wallet(node_id))
    return {};
  const bool plain = std::all_of(manifest.tensors.begin(), manifest.tensors.end(), [](const auto& tensor) {
    return tensor.name.find('/') == std::string::npos || tensor.name.starts_with(velocity_prefix);
  });
  if (plain && !manifest.units.empty() &&
      std::all_of(manifest.units.begin(), manifest.units.end(),
                  [&](const unit_state& unit) { return options.cohort_member(node_id, unit.unit); }))
    return {};
  return no_upload(errc::forbidden, "upload",
                   "A checkpoint is taken from nodes of the same wallet, or of units held here.");
}

caf::result<upload_begun> checkpoint_receiver_state::begin(const begin_upload& request) {
  if (draining)
    return refuse(errc::draining, "The node is stopping.");
  auto manifest = open_manifest(request.manifest, parts.time->unix_us() / 1'000);
  if (!manifest)
    return manifest.error();
  if (auto wrong = may_upload(request.from.node_id, *manifest))
    return wrong;
  if (auto wrong = check(*manifest, options.architecture))
    return wrong;
  upload_begun begun;
  begun.checkpoint_id = checkpoint_id_of(request.manifest);
  begun.total_bytes = manifest->total_bytes;
  if (const auto stored = stored_stream::open(ready_directory(options.folder, *manifest));
      stored.ok() && stored->manifest().tensors == manifest->tensors) {
    begun.resume_offset = begun.total_bytes;
    return begun;
  }
  if (uploads.size() >= uploads_max || std::any_of(uploads.begin(), uploads.end(), [&](const auto& one) {
        return one.second.peer == request.from.node_id;
      }))
    return no_upload(errc::overloaded, "uploads", "As many checkpoints as may be are being received.");
  if (in_use(partial_directory(options.folder, *manifest)))
    return no_upload(errc::overloaded, "uploads", "The same checkpoint is being received already.");
  if (auto full = make_room(*manifest))
    return full;
  auto partial = partial_stream::open(options.folder, request.manifest, std::move(*manifest));
  if (!partial.ok())
    return refuse(partial.status());
  begun.upload_id = next_id++;
  begun.resume_offset = partial->received();
  uploads.emplace(begun.upload_id, upload{request.from.node_id, begun.checkpoint_id, std::move(*partial),
                                          parts.time->steady_us()});
  return begun;
}

caf::result<void> checkpoint_receiver_state::take(const upload_chunk& request) {
  const auto at = uploads.find(request.upload_id);
  if (at == uploads.end())
    return no_upload(errc::aborted, "upload", "The upload was given up.");
  if (!request.chunk.data || request.chunk.data->empty())
    return caf::unit;
  auto& into = at->second;
  into.used_us = parts.time->steady_us();
  if (auto wrong = into.partial.append(request.chunk.offset, *request.chunk.data, request.chunk.sha256)) {
    uploads.erase(at);
    // What does not match is the sender's fault, not this disk's.
    return code_of(wrong) == errc::data_loss ? refuse(errc::invalid_request, problem_of(wrong)) : wrong;
  }
  received_bytes += request.chunk.data->size();
  return caf::unit;
}

caf::result<put_checkpoint_reply> checkpoint_receiver_state::end(const end_upload& request) {
  const auto at = uploads.find(request.upload_id);
  if (at == uploads.end())
    return no_upload(errc::aborted, "upload", "The upload was given up.");
  auto ended = std::move(at->second);
  uploads.erase(at);
  put_checkpoint_reply reply;
  reply.checkpoint_id = ended.checkpoint_id;
  reply.received_bytes = reply.resume_offset = ended.partial.received();
  if (!ended.partial.complete()) {
    reply.status = put_status::partial;
    return reply;
  }
  if (auto stored = ended.partial.finish()) {
    reply.status = put_status::stored;
    log::info(name, "upload-stored id={} bytes={} from={}", reply.checkpoint_id, reply.received_bytes,
              ended.peer);
  } else if (code_of(stored.error()) == errc::data_loss) {
    reply.status = put_status::rejected;
    reply.message = problem_of(stored.error()).message;
    reply.received_bytes = reply.resume_offset = 0;
  } else {
    return stored.error();
  }
  return reply;
}

void checkpoint_receiver_state::tidy() {
  const int64_t steady_us = parts.time->steady_us();
  std::erase_if(uploads, [&](const auto& one) {
    return steady_us - one.second.used_us > 2'000 * int64_t{options.silence_ms};
  });
  std::vector<uint64_t> forgotten;
  for (const auto& [id, one] : held)
    if (steady_us - one.used_us > kept_us)
      forgotten.push_back(id);
  for (const uint64_t id : forgotten)
    drop(id);
  const int64_t unix_us = parts.time->unix_us();
  for (const auto& one : list_streams(options.folder, partial_suffix))
    if (unix_us - one.written_unix_us > kept_us && !in_use(one.path))
      (void)remove_tree(one.path);
  const auto ready = list_streams(options.folder, ready_suffix);
  for (size_t i = 0; i + stored_streams_max < ready.size(); ++i)
    if (!in_use(ready[i].path))
      (void)remove_tree(ready[i].path);
}

actor_status checkpoint_receiver_state::report() const {
  return {name,
          actor_status::health::ok,
          "",
          {{"fetching", fetch ? "1" : "0"},
           {"waiting", std::to_string(waiting.size())},
           {"uploads", std::to_string(uploads.size())},
           {"held", std::to_string(held.size())},
           {"received_bytes", std::to_string(received_bytes)}}};
}

checkpoint_receiver_actor::behavior_type checkpoint_receiver(checkpoint_receiver_state::pointer self,
                                                             checkpoint_receiver_options options,
                                                             checkpoint_receiver_parts parts) {
  self->state.options = std::move(options);
  self->state.parts = std::move(parts);
  self->state.tidy();
  self->delayed_send(self, tidy_every, tick_atom_v);
  return {
      [self](fetch_units& request) { return self->state.begin_fetch(self, request); },
      [self](const read_fetched& request) { return self->state.read(request); },
      [self](const write_fetched& request) { return self->state.write(self, request); },
      [self](const drop_fetched& request) { self->state.drop(request.fetch_id); },
      [self](const checkpoint_part& part) -> caf::result<void> {
        if (auto wrong = self->state.take_part(part))
          return wrong;
        return caf::unit;
      },
      [self](const begin_upload& request) { return self->state.begin(request); },
      [self](const upload_chunk& request) { return self->state.take(request); },
      [self](const end_upload& request) { return self->state.end(request); },
      [self](const abort_upload& request) { self->state.uploads.erase(request.upload_id); },
      [self](try_again_atom) {
        if (self->state.fetch && self->state.fetch->download_id == 0)
          self->state.ask_candidate(self);
      },
      [self](tick_atom) {
        self->state.tidy();
        self->delayed_send(self, tidy_every, tick_atom_v);
      },
      [self](drain_atom) {
        auto& state = self->state;
        state.draining = true;
        state.uploads.clear();
        const auto stopping = [] { return refuse(errc::draining, "The node is stopping."); };
        for (auto& one : state.waiting)
          one.promise.deliver(stopping());
        state.waiting.clear();
        if (state.fetch)
          state.end_fetch(self, stopping());
      },
      [self](status_atom) -> actor_status { return self->state.report(); },
  };
}

} // namespace neuroshard

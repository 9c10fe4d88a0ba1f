#include "actors/checkpointer/checkpoint_server.hpp"

#include "actors/checkpointer/checkpoint_folder.hpp"
#include "actors/common/error.hpp"
#include "actors/common/kernel_error.hpp"
#include "actors/common/log.hpp"

#include <algorithm>
#include <chrono>

namespace neuroshard {

namespace {

constexpr size_t verified_piece_bytes = size_t{8} << 20;
constexpr size_t known_manifests_max = 16;
constexpr int64_t come_back_ms = 1'000;
constexpr auto idle_look = std::chrono::seconds(5);

caf::error no_stream(errc code, const char* reason, std::string message) {
  problem what;
  what.message = std::move(message);
  what.reason = reason;
  if (code == errc::overloaded)
    what.details.emplace_back("retry_after_ms", come_back_ms);
  return refuse(code, std::move(what));
}

} // namespace

caf::error checkpoint_server_state::check(const checkpoint_wish& what, const connection_end& from) const {
  if (draining)
    return refuse(errc::draining, "The node is stopping.");
  if (what.units.size() > wished_units_max)
    return no_stream(errc::invalid_request, "units", "Too many units are asked for.");
  if (what.chunk_bytes != 0 && (what.chunk_bytes < chunk_bytes_min || what.chunk_bytes > chunk_bytes_max))
    return no_stream(errc::invalid_request, "chunk_bytes", "A chunk has 64 KiB to 4 MiB.");
  if (!what.checkpoint_id.empty() && !is_lower_hex(what.checkpoint_id, 64))
    return no_stream(errc::invalid_request, "checkpoint_id", "A checkpoint id is 64 hex digits.");
  if (!what.architecture_id.empty() && what.architecture_id != model::architecture_id(options.architecture))
    return no_stream(errc::failed_precondition, "architecture", "This node holds another architecture.");
  if (what.include_optimizer && !from.node_id.empty() && !options.same_wallet(from.node_id))
    return no_stream(errc::forbidden, "optimizer",
                     "Optimizer state and inner weights are for nodes of the same wallet.");
  if (streams.size() + openings.size() >= checkpoint_streams_max)
    return no_stream(errc::overloaded, "streams", "As many checkpoints as may be are being sent.");
  const auto is_peers = [&](const std::string& peer) { return !peer.empty() && peer == from.node_id; };
  if (std::any_of(streams.begin(), streams.end(), [&](const auto& s) { return is_peers(s.second.peer); }) ||
      std::any_of(openings.begin(), openings.end(),
                  [&](const auto& o) { return is_peers(o.request.from.node_id); }))
    return no_stream(errc::overloaded, "streams", "A checkpoint is being sent to this node already.");
  return {};
}

caf::error checkpoint_server_state::damaged(const std::string& id, const kernels::status& why) {
  if (why.why() != kernels::code::corrupt)
    return refuse(why);
  const auto aside = set_aside(options.folder, id);
  log::error(name, "checkpoint-damaged id={} why={} set-aside={}", id, why.message(),
             aside.ok() ? *aside : aside.status().message());
  std::erase_if(known, [&](const known_manifest& one) { return one.key.starts_with(id); });
  return no_stream(errc::data_loss, "checkpoint", "The stored checkpoint is damaged.");
}

caf::expected<std::pair<std::string, checkpoint_reader>>
checkpoint_server_state::find(const checkpoint_wish& what) {
  bool was_damaged = false;
  for (const auto& entry : list_folder(options.folder)) {
    auto reader = checkpoint_reader::open(options.folder + "/" + entry.id);
    if (!reader.ok()) {
      if (reader.status().why() == kernels::code::corrupt) {
        (void)damaged(entry.id, reader.status());
        was_damaged = true;
      }
      continue;
    }
    const auto& held = reader->manifest();
    const auto& state = held.state;
    if (held.architecture != options.architecture || held.tokenizer_hash != options.tokenizer_hash ||
        state.outer_step < what.min_version || (what.version != 0 && state.outer_step != what.version))
      continue;
    // Inner weights belong to full states alone, which no stranger gets.
    if (state.inner_step != state.round_first_step && !what.include_optimizer)
      continue;
    return std::pair{entry.id, std::move(*reader)};
  }
  if (was_damaged)
    return no_stream(errc::data_loss, "checkpoint", "The stored checkpoint is damaged.");
  return no_stream(errc::not_found, "checkpoint", "There is no checkpoint of that version here.");
}

std::string checkpoint_server_state::key_of(const std::string& id, const checkpoint_wish& what) {
  auto units = what.units;
  std::sort(units.begin(), units.end());
  auto key = id + (what.include_optimizer ? " o" : " -") + (what.include_velocity ? "v" : "-");
  for (const auto& unit : units)
    key += " " + unit;
  return key;
}

caf::result<checkpoint_opened> checkpoint_server_state::open(pointer self, open_checkpoint& request) {
  if (auto refused = check(request.what, request.from))
    return refused;
  auto found = find(request.what);
  if (!found)
    return found.error();
  auto& [id, reader] = *found;
  auto source = checkpoint_source::open(
      std::move(reader), {request.what.units, request.what.include_optimizer, request.what.include_velocity});
  if (!source.ok())
    return no_stream(errc::not_found, "unit", source.status().message());
  const auto key = key_of(id, request.what);
  const auto before = std::find_if(known.begin(), known.end(), [&](const auto& one) {
    return one.key == key && one.created_unix_us == source->manifest().created_unix_us;
  });
  if (before != known.end()) {
    auto opened = begin(request, id, *source, before->blob);
    if (!opened)
      return opened.error();
    return std::move(*opened);
  }
  auto promise = self->make_response_promise<checkpoint_opened>();
  openings.push_back({std::move(request), id, std::move(*source), promise});
  if (openings.size() == 1)
    self->send(self, next_piece_atom_v);
  return promise;
}

/// One piece of the first opening, which then goes to the end of the line.
void checkpoint_server_state::verify_next(pointer self) {
  if (openings.empty())
    return;
  auto now = std::move(openings.front());
  openings.pop_front();
  piece.resize(verified_piece_bytes);
  auto done = now.source.verify_piece(piece);
  if (!done.ok()) {
    now.promise.deliver(damaged(now.id, done.status()));
  } else if (!*done) {
    openings.push_back(std::move(now));
  } else if (auto made = now.source.describe(who->node_id(), now.request.what.include_optimizer);
             !made.ok()) {
    now.promise.deliver(refuse(made.status()));
  } else {
    auto blob = who->sign_as_node(checkpoint_tag, encode(*made));
    known.push_back({key_of(now.id, now.request.what), now.source.manifest().created_unix_us, blob});
    if (known.size() > known_manifests_max)
      known.pop_front();
    auto opened = begin(now.request, now.id, now.source, blob);
    if (opened)
      now.promise.deliver(std::move(*opened));
    else
      now.promise.deliver(std::move(opened.error()));
  }
  if (openings.empty())
    piece = {};
  else
    self->send(self, next_piece_atom_v);
}

caf::expected<checkpoint_opened> checkpoint_server_state::begin(const open_checkpoint& request,
                                                                const std::string& id,
                                                                checkpoint_source& source,
                                                                const signed_blob& manifest) {
  const auto& what = request.what;
  checkpoint_opened opened;
  opened.manifest = manifest;
  opened.checkpoint_id = checkpoint_id_of(manifest);
  opened.total_bytes = source.total_bytes();
  opened.chunk_bytes = what.chunk_bytes == 0 ? chunk_bytes_max : what.chunk_bytes;
  if (!what.checkpoint_id.empty() && what.checkpoint_id != opened.checkpoint_id)
    return no_stream(errc::not_found, "checkpoint", "That checkpoint is here no more.");
  if (what.offset > opened.total_bytes)
    return no_stream(errc::invalid_request, "offset", "The stream ends before that.");
  if (what.manifest_only)
    return opened;
  opened.stream_id = next_stream++;
  streams.emplace(opened.stream_id,
                  stream{request.from.node_id, id, std::move(source), opened.chunk_bytes, time->steady_us()});
  ++served_streams;
  return opened;
}

caf::result<checkpoint_chunk> checkpoint_server_state::read(const read_chunk& request) {
  const auto at = streams.find(request.stream_id);
  if (at == streams.end())
    return no_stream(errc::aborted, "stream", "The stream is closed.");
  auto& from = at->second;
  const uint64_t total = from.source.total_bytes();
  if (request.offset > total)
    return no_stream(errc::invalid_request, "offset", "The stream ends before that.");
  auto data = std::make_shared<std::string>();
  data->resize(std::min<uint64_t>(from.chunk_bytes, total - request.offset));
  if (auto got = from.source.read(request.offset, std::as_writable_bytes(std::span(*data))); !got.ok()) {
    const auto id = from.id;
    streams.erase(at);
    return damaged(id, got);
  }
  from.used_us = time->steady_us();
  served_bytes += data->size();
  checkpoint_chunk chunk;
  chunk.offset = request.offset;
  chunk.sha256 = kernels::sha256::of(*data);
  chunk.last = request.offset + data->size() == total;
  chunk.data = std::move(data);
  return chunk;
}

void checkpoint_server_state::close_idle() {
  const int64_t now_us = time->steady_us();
  std::erase_if(streams, [&](const auto& s) { return now_us - s.second.used_us > options.idle_ms * 1'000; });
}

actor_status checkpoint_server_state::report() const {
  return {name,
          actor_status::health::ok,
          "",
          {{"streams", std::to_string(streams.size())},
           {"opening", std::to_string(openings.size())},
           {"served_streams", std::to_string(served_streams)},
           {"served_bytes", std::to_string(served_bytes)}}};
}

checkpoint_server_actor::behavior_type checkpoint_server(checkpoint_server_state::pointer self,
                                                         checkpoint_server_options options,
                                                         std::shared_ptr<const node_identity> who,
                                                         time_source_ptr time) {
  self->state.options = std::move(options);
  self->state.who = std::move(who);
  self->state.time = std::move(time);
  self->delayed_send(self, idle_look, tick_atom_v);
  return {
      [self](open_checkpoint& request) { return self->state.open(self, request); },
      [self](const read_chunk& request) { return self->state.read(request); },
      [self](const close_checkpoint& request) { self->state.streams.erase(request.stream_id); },
      [self](next_piece_atom) { self->state.verify_next(self); },
      [self](tick_atom) {
        self->state.close_idle();
        self->delayed_send(self, idle_look, tick_atom_v);
      },
      [self](drain_atom) {
        self->state.draining = true;
        self->state.streams.clear();
      },
      [self](status_atom) -> actor_status { return self->state.report(); },
  };
}

} // namespace neuroshard

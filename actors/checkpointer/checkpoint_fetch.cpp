// The receiver's own downloads.
#include "actors/checkpointer/checkpoint_receiver.hpp"
#include "actors/checkpointer/host_tensor.hpp"
#include "actors/common/error.hpp"
#include "actors/common/kernel_error.hpp"
#include "actors/common/log.hpp"

#include <algorithm>
#include <chrono>

namespace neuroshard {

namespace {

constexpr size_t fetches_waiting_max = 4;
constexpr size_t fetch_candidates_max = 64;
constexpr unsigned attempts_max = 3;
constexpr uint64_t steps_of_round_max = 10'000; ///< `training.diloco_steps`
constexpr uint32_t backoff_first_ms = 100, backoff_most_ms = 2'000;
constexpr auto write_timeout = std::chrono::seconds(120);

caf::error no_fetch(errc code, const char* reason, std::string message) {
  problem what;
  what.message = std::move(message);
  what.reason = reason;
  return refuse(code, std::move(what));
}

/// Whether the same peer may do better in a moment.
bool may_pass(const caf::error& why) {
  switch (code_of(why)) {
  case errc::unavailable:
  case errc::not_ready:
  case errc::overloaded:
  case errc::rate_limited:
  case errc::timeout:
  case errc::cancelled:
  case errc::aborted:
    return true;
  default:
    return false;
  }
}

/// The counters are taken over, and no hash is told of them: they must be possible.
bool of_outer_step(const training_state& state, const transfer_manifest& manifest) {
  return state.outer_step == manifest.version && state.inner_step == manifest.inner_step &&
         state.inner_step == state.round_first_step &&
         state.inner_step / steps_of_round_max <= state.outer_step && state.loss >= 0;
}

} // namespace

caf::result<fetched_units> checkpoint_receiver_state::begin_fetch(pointer self, fetch_units& request) {
  if (draining)
    return refuse(errc::draining, "The node is stopping.");
  if (request.expected.size() > wished_units_max || request.candidates.size() > fetch_candidates_max ||
      (request.expected.empty() && !request.include_tokenizer))
    return no_fetch(errc::invalid_request, "units", "No units, or too many, or too many candidates.");
  if (waiting.size() >= fetches_waiting_max)
    return no_fetch(errc::overloaded, "fetches", "Too many fetches are waiting.");
  fetching job;
  job.request = std::move(request);
  job.promise = self->make_response_promise<fetched_units>();
  const auto promise = job.promise;
  if (fetch) {
    waiting.push_back(std::move(job));
  } else {
    fetch.emplace(std::move(job));
    ask_candidate(self);
  }
  return promise;
}

std::optional<stored_stream> checkpoint_receiver_state::find_stored() {
  for (const auto& one : list_streams(options.folder, ready_suffix)) {
    auto stream = stored_stream::open(one.path);
    if (!stream.ok()) {
      log::warn(name, "stored-stream-dropped path={} why={}", one.path, stream.status().message());
      (void)remove_tree(one.path);
      continue;
    }
    if (!check(stream->manifest(), options.architecture) && !check_wanted(stream->manifest()))
      return std::move(*stream);
  }
  return std::nullopt;
}

void checkpoint_receiver_state::ask_candidate(pointer self) {
  if (fetch->candidate == 0 && fetch->attempts == 0)
    if (auto stream = find_stored())
      return end_fetch(self, describe(std::move(*stream), {}));
  if (fetch->candidate == fetch->request.candidates.size()) {
    std::string message = "No candidate gave what is wanted.";
    for (const auto& why : fetch->refused)
      message += " " + why;
    return end_fetch(self, no_fetch(errc::not_found, "no_candidate", std::move(message)));
  }
  ask(self, true);
}

/// The manifest alone at first: what follows from it decides where the stream is to begin.
void checkpoint_receiver_state::ask(pointer self, bool manifest_only) {
  checkpoint_download call;
  auto& what = call.what;
  what.version = what.min_version = fetch->request.version;
  for (const auto& unit : fetch->request.expected)
    what.units.push_back(unit.unit);
  if (fetch->request.include_tokenizer)
    what.units.emplace_back(tokenizer_unit);
  what.include_velocity = fetch->request.include_velocity;
  what.architecture_id = model::architecture_id(options.architecture);
  what.chunk_bytes = options.chunk_bytes;
  what.manifest_only = manifest_only;
  fetch->wants_data = !manifest_only;
  if (manifest_only) {
    fetch->blob.reset();
  } else {
    what.checkpoint_id = checkpoint_id_of(*fetch->blob);
    what.offset = fetch->partial->received();
  }
  fetch->fault = {};
  fetch->received_before = received_bytes;
  fetch->download_id = call.download_id = next_id++;
  call.sink = caf::actor_cast<checkpoint_sink_actor>(self);
  const auto& to = fetch->request.candidates[fetch->candidate];
  self->request(parts.link, caf::infinite,
                peer_call<checkpoint_download>{to, std::move(call), options.silence_ms})
      .then([self, id = fetch->download_id, manifest_only](
                const checkpoint_download_end&) { self->state.call_ended(self, id, manifest_only, {}); },
            [self, id = fetch->download_id, manifest_only](const caf::error& why) {
              self->state.call_ended(self, id, manifest_only, why);
            });
}

void checkpoint_receiver_state::call_ended(pointer self, uint64_t download_id, bool manifest_only,
                                           const caf::error& why) {
  if (!fetch || fetch->download_id != download_id)
    return;
  fetch->download_id = 0;
  if (fetch->fault)
    return next_candidate(self, fetch->fault);
  if (why)
    return candidate_broke(self, why);
  if (manifest_only) {
    if (auto fault = manifest_came())
      return next_candidate(self, fault);
    if (auto stored = stored_stream::open(ready_directory(options.folder, fetch->partial->manifest()));
        stored.ok() && stored->manifest().tensors == fetch->partial->manifest().tensors)
      return end_fetch(self,
                       describe(std::move(*stored), fetch->request.candidates[fetch->candidate].node_id));
    if (!fetch->partial->complete())
      return ask(self, false);
  }
  if (fetch->partial->complete())
    return stream_is_here(self);
  candidate_broke(self, no_fetch(errc::unavailable, "cut_off", "The stream ended before its end."));
}

caf::error checkpoint_receiver_state::check_wanted(const transfer_manifest& manifest) const {
  const auto& want = fetch->request;
  if (manifest.version != want.version && !want.expected.empty())
    return no_fetch(errc::failed_precondition, "version", "The checkpoint is of another version.");
  const auto state = parse_state(manifest.state_json);
  if (!state.ok())
    return no_fetch(errc::invalid_request, "manifest", state.status().message());
  if (!of_outer_step(*state, manifest))
    return no_fetch(errc::invalid_request, "manifest", "The counters are not those of that outer step.");
  if (auto differs = check_units(manifest, want.expected, want.include_velocity))
    return differs;
  bool tokenizer = false;
  for (const auto& tensor : manifest.tensors) {
    const bool is_tokenizer = tensor.name == tokenizer_unit;
    tokenizer = tokenizer || is_tokenizer;
    const bool is_weight = !is_tokenizer && tensor.name.find('/') == std::string::npos;
    if (!is_weight && !(is_tokenizer && want.include_tokenizer) &&
        !(want.include_velocity && tensor.name.starts_with(velocity_prefix)))
      return no_fetch(errc::invalid_request, "table", "Tensor " + tensor.name + " was not asked for.");
  }
  if (tokenizer != want.include_tokenizer)
    return no_fetch(errc::invalid_request, "table", "The tokenizer is missing.");
  const auto& tokenizer_hash = want.tokenizer_hash.empty() ? options.tokenizer_hash : want.tokenizer_hash;
  if (!tokenizer_hash.empty() && kernels::to_hex(manifest.tokenizer_hash) != tokenizer_hash)
    return no_fetch(errc::failed_precondition, "tokenizer", "The checkpoint is of another tokenizer.");
  return {};
}

caf::error checkpoint_receiver_state::manifest_came() {
  if (!fetch->blob)
    return no_fetch(errc::invalid_request, "manifest", "No manifest came.");
  auto manifest = open_manifest(*fetch->blob, parts.time->unix_us() / 1'000);
  if (!manifest)
    return manifest.error();
  const auto& candidate = fetch->request.candidates[fetch->candidate];
  if (!candidate.node_id.empty() && manifest->author_node_id != candidate.node_id)
    return no_fetch(errc::unauthorized, "bad_signature", "The manifest is another node's.");
  if (auto wrong = check(*manifest, options.architecture))
    return wrong;
  if (auto wrong = check_wanted(*manifest))
    return wrong;
  // What came before a break is as good as it was.
  if (fetch->partial && fetch->partial->manifest().sha256 == manifest->sha256 &&
      fetch->partial->manifest().tensors == manifest->tensors)
    return {};
  fetch->partial.reset();
  if (auto full = make_room(*manifest))
    return full;
  const auto ready = ready_directory(options.folder, *manifest);
  const auto directory = ready.substr(0, ready.size() - ready_suffix.size()) + std::string(partial_suffix);
  if (in_use(directory))
    return no_fetch(errc::overloaded, "busy", "The same checkpoint is being uploaded.");
  auto partial = partial_stream::open(options.folder, *fetch->blob, std::move(*manifest));
  if (!partial.ok())
    return refuse(partial.status());
  fetch->partial.emplace(std::move(*partial));
  return {};
}

caf::error checkpoint_receiver_state::take_part(const checkpoint_part& part) {
  if (!fetch || fetch->download_id != part.download_id)
    return refuse(errc::cancelled, "Nobody waits for this download.");
  if (part.manifest) {
    if (fetch->blob && checkpoint_id_of(*fetch->blob) != checkpoint_id_of(*part.manifest))
      return fetch->fault = no_fetch(errc::invalid_request, "manifest", "The manifest has changed.");
    if (!fetch->blob)
      fetch->blob = part.manifest;
  }
  if (!part.chunk.data || part.chunk.data->empty())
    return {};
  if (!fetch->wants_data)
    return fetch->fault = no_fetch(errc::invalid_request, "chunk", "Bytes came that were not asked for.");
  if (auto wrong = fetch->partial->append(part.chunk.offset, *part.chunk.data, part.chunk.sha256))
    return fetch->fault = std::move(wrong);
  received_bytes += part.chunk.data->size();
  return {};
}

void checkpoint_receiver_state::candidate_broke(pointer self, const caf::error& why) {
  if (received_bytes != fetch->received_before)
    fetch->attempts = 0;
  if (draining || !may_pass(why) || ++fetch->attempts >= attempts_max)
    return next_candidate(self, why);
  // Full jitter, so that many who lost the same peer do not come back at once.
  const uint32_t most = std::min(backoff_most_ms, backoff_first_ms << (fetch->attempts - 1));
  uint32_t drawn = 0;
  parts.random->fill(&drawn, sizeof drawn);
  self->delayed_send(self, std::chrono::milliseconds(drawn % (most + 1)), try_again_atom_v);
}

void checkpoint_receiver_state::next_candidate(pointer self, const caf::error& why) {
  const auto& to = fetch->request.candidates[fetch->candidate];
  const auto what = problem_of(why);
  log::warn(name, "candidate-failed node={} address={} reason={} why={}", to.node_id, to.address, what.reason,
            what.message);
  fetch->refused.push_back((to.node_id.empty() ? to.address : to.node_id) + ": " + what.message);
  // No other candidate makes room on this disk.
  if (code_of(why) == errc::storage || what.reason == "storage")
    return end_fetch(self, why);
  ++fetch->candidate;
  fetch->attempts = 0;
  ask_candidate(self);
}

void checkpoint_receiver_state::stream_is_here(pointer self) {
  auto ready = fetch->partial->finish();
  fetch->partial.reset();
  if (!ready)
    return next_candidate(self, ready.error());
  auto stream = stored_stream::open(*ready);
  if (!stream.ok())
    return next_candidate(self, refuse(stream.status()));
  end_fetch(self, describe(std::move(*stream), fetch->request.candidates[fetch->candidate].node_id));
}

fetched_units checkpoint_receiver_state::describe(stored_stream stream, const std::string& from) {
  fetched_units made;
  const auto& manifest = stream.manifest();
  made.fetch_id = next_id++;
  made.version = manifest.version;
  made.from = from;
  made.bytes = manifest.total_bytes;
  if (auto state = parse_state(manifest.state_json); state.ok())
    made.state = std::move(*state);
  made.tokenizer_hash = kernels::to_hex(manifest.tokenizer_hash);
  for (const auto& tensor : manifest.tensors)
    made.tensors.push_back({tensor.name, tensor.type, tensor.shape, tensor.length});
  made.refused = fetch->refused;
  held.emplace(made.fetch_id, held_stream{std::move(stream), parts.time->steady_us()});
  return made;
}

void checkpoint_receiver_state::end_fetch(pointer self, caf::expected<fetched_units> outcome) {
  auto ended = std::move(*fetch);
  fetch.reset();
  if (outcome) {
    log::info(name, "fetched version={} bytes={} from={}", outcome->version, outcome->bytes, outcome->from);
    ended.promise.deliver(std::move(*outcome));
  } else {
    ended.promise.deliver(std::move(outcome.error()));
  }
  if (waiting.empty())
    return;
  fetch.emplace(std::move(waiting.front()));
  waiting.pop_front();
  ask_candidate(self);
}

// ----------------------------------------------------------------------------------------- what was fetched

caf::result<tensor_handle> checkpoint_receiver_state::read(const read_fetched& request) {
  const auto at = held.find(request.fetch_id);
  const auto* tensor = at == held.end() ? nullptr : at->second.stream.find(request.name);
  if (tensor == nullptr)
    return refuse(errc::not_found, "There is no such tensor, or it was dropped.");
  at->second.used_us = parts.time->steady_us();
  auto handle = make_host_tensor(tensor->type, tensor->shape, tensor->length);
  if (!handle)
    return refuse(errc::overloaded, "no memory for tensor " + request.name);
  if (auto got = at->second.stream.read(*tensor, std::span(handle.view.as<std::byte>(), tensor->length));
      !got.ok())
    return refuse(got);
  return handle;
}

caf::result<void> checkpoint_receiver_state::write(pointer self, const write_fetched& request) {
  const auto at = held.find(request.fetch_id);
  if (at == held.end())
    return refuse(errc::not_found, "There is no such fetch, or it was dropped.");
  const auto job = std::make_shared<writing>();
  job->fetch_id = request.fetch_id;
  job->to = request.to;
  job->optimizer_step = request.optimizer_step;
  for (const auto& tensor : at->second.stream.manifest().tensors)
    if (tensor.name != tokenizer_unit && tensor.name.find('/') == std::string::npos)
      job->names.push_back(tensor.name);
  job->promise = self->make_response_promise<caf::unit_t>();
  write_next(self, job);
  return job->promise;
}

void checkpoint_receiver_state::write_next(pointer self, const std::shared_ptr<writing>& job) {
  const auto failed = [job](caf::error& why) { job->promise.deliver(std::move(why)); };
  if (job->next == job->names.size()) {
    self->request(job->to, write_timeout, finish_load{job->optimizer_step})
        .then([job] { job->promise.deliver(caf::unit); }, failed);
    return;
  }
  const auto& tensor_name = job->names[job->next++];
  const auto at = held.find(job->fetch_id);
  const auto* tensor = at == held.end() ? nullptr : at->second.stream.find(tensor_name);
  if (tensor == nullptr)
    return void(job->promise.deliver(refuse(errc::cancelled, "What was fetched has been dropped.")));
  at->second.used_us = parts.time->steady_us();
  auto handle = make_host_tensor(tensor->type, tensor->shape, tensor->length);
  if (!handle)
    return void(job->promise.deliver(refuse(errc::overloaded, "no memory for tensor " + tensor_name)));
  const auto got = at->second.stream.read(*tensor, std::span(handle.view.as<std::byte>(), tensor->length));
  if (!got.ok())
    return void(job->promise.deliver(refuse(got)));
  self->request(job->to, write_timeout, write_tensor{tensor_name, std::move(handle)})
      .then([self, job] { self->state.write_next(self, job); }, failed);
}

void checkpoint_receiver_state::drop(uint64_t fetch_id) {
  const auto at = held.find(fetch_id);
  if (at == held.end())
    return;
  const auto directory = at->second.stream.directory();
  held.erase(at);
  if (!in_use(directory))
    (void)remove_tree(directory);
}

} // namespace neuroshard

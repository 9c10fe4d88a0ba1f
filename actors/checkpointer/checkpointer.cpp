#include "actors/checkpointer/checkpointer.hpp"

#include "actors/checkpointer/host_tensor.hpp"
#include "actors/common/kernel_error.hpp"
#include "actors/common/log.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>

namespace neuroshard {

namespace {

/// A worker under load answers bulk work late, but one that is silent for so long is gone.
constexpr auto worker_timeout = std::chrono::seconds(120);
constexpr size_t waiting_max = 4;
constexpr size_t hashes_max = 16; ///< more than can be waiting

bool must_be_written(const std::string& reason) {
  return reason == "stop" || reason == "first" || reason == "outer" || reason == "resync";
}

template <class Message>
void tell(const caf::strong_actor_ptr& whom, Message message) {
  if (whom)
    caf::anon_send(caf::actor_cast<caf::actor>(whom), std::move(message));
}

} // namespace

// ------------------------------------------------------------------------------------------------ saving

caf::result<save_begun> checkpointer_state::begin_save(pointer self, const save_checkpoint& request) {
  if (load || load_waiting)
    return refuse(errc::not_ready, "a checkpoint is being loaded");
  if (save && (!must_be_written(request.reason) || waiting.size() >= waiting_max))
    return save_begun{request.state.inner_step, false};
  saving job;
  job.request = request;
  job.asked_by = self->current_sender(); // before the promise, which takes it
  auto promise = self->make_response_promise<save_begun>();
  job.promise = promise;
  if (save) {
    waiting.push_back(std::move(job));
  } else {
    save.emplace(std::move(job));
    open_view(self);
  }
  return promise;
}

void checkpointer_state::open_view(pointer self) {
  save->since_us = time->steady_us();
  self->request(worker, worker_timeout, open_snapshot{true})
      .then([self](const snapshot_opened& view) { self->state.view_opened(self, view); },
            [self](const caf::error& e) { self->state.fail_save(self, problem_of(e).message); });
}

void checkpointer_state::view_opened(pointer self, const snapshot_opened& view) {
  save->view = view;
  save->request.state.optimizer_step = view.optimizer_step;
  if (!options.outer)
    return begin_writing(self);
  // Before the answer, which lets the next round begin.
  self->request(options.outer, worker_timeout, read_outer_state{})
      .then(
          [self](outer_tensors& held) {
            self->state.save->outer = std::move(held.tensors);
            self->state.begin_writing(self);
          },
          [self](const caf::error& e) {
            log::warn(name, "outer-state-not-saved why=\"{}\"", problem_of(e).message);
            self->state.begin_writing(self);
          });
}

void checkpointer_state::begin_writing(pointer self) {
  save->promise.deliver(save_begun{save->request.state.inner_step, true});
  auto tag = std::to_string(save->request.state.inner_step) + "-" + std::to_string(++unfinished);
  auto writer = checkpoint_writer::begin(options.folder, tag);
  if (!writer.ok())
    return fail_save(self, writer.status().message());
  save->writer.emplace(std::move(*writer));
  read_next(self);
}

void checkpointer_state::read_next(pointer self) {
  if (save->next == save->view.tensors.size())
    return finish_save(self);
  self->request(worker, worker_timeout,
                read_snapshot{save->view.snapshot_id, save->view.tensors[save->next].name})
      .then([self](const tensor_handle& tensor) { self->state.tensor_read(self, tensor); },
            [self](const caf::error& e) { self->state.fail_save(self, problem_of(e).message); });
}

void checkpointer_state::tensor_read(pointer self, const tensor_handle& tensor) {
  const auto& entry = save->view.tensors[save->next];
  if (!tensor.on_host() || !tensor.view.contiguous() || tensor.view.type != kernels::dtype::f32 ||
      tensor.view.bytes() != entry.bytes)
    return fail_save(self, "the layer worker gave something else than tensor " + entry.name);
  const auto bytes = std::span(tensor.view.as<const std::byte>(), entry.bytes);
  if (auto written = save->writer->append(entry.name, entry.shape, bytes); !written.ok())
    return fail_save(self, written.message());
  ++save->next;
  read_next(self);
}

/// Of units whose weights are in the checkpoint too: state without them is of no use.
kernels::status checkpointer_state::write_outer_tensors() {
  for (const auto& [tensor, value] : save->outer) {
    const auto weight = std::string_view(tensor).substr(tensor.find('/') + 1);
    if (std::none_of(save->view.tensors.begin(), save->view.tensors.end(),
                     [&](const tensor_entry& entry) { return entry.name == weight; }))
      continue;
    const auto& view = value.view;
    NEUROSHARD_TRY(save->writer->append(tensor, {view.shape.begin(), view.shape.begin() + view.rank},
                                        std::span(view.as<const std::byte>(), view.bytes())));
  }
  save->outer.clear();
  return {};
}

/// Checkpoints are written one after another, so that what this one refers to is on disk by now, or will
/// never be: then its work goes on with the hash before, as the trainer's does.
void checkpointer_state::resolve_hashes(training_state& state) const {
  const auto resolve = [this](std::optional<uint64_t>& step, std::string& hash) {
    if (!step)
      return;
    if (const auto at = hashes.find(*step); at != hashes.end())
      hash = at->second;
    step.reset();
  };
  const std::string* before = nullptr;
  for (auto& work : state.unclaimed) {
    if (work.hash_of && before != nullptr)
      work.model_hash_start = *before;
    resolve(work.hash_of, work.model_hash_start);
    before = &work.model_hash_start;
  }
  std::erase_if(state.unclaimed, [](const unclaimed_work& work) { return work.model_hash_start.empty(); });
  resolve(state.outer_hash_of, state.outer_model_hash);
}

void checkpointer_state::finish_save(pointer self) {
  if (auto written = write_outer_tensors(); !written.ok())
    return fail_save(self, written.message());
  checkpoint_manifest manifest;
  manifest.software = options.software;
  manifest.wallet_id = options.wallet_id;
  manifest.reason = save->request.reason;
  manifest.created_unix_us = time->unix_us();
  manifest.architecture = options.architecture;
  manifest.tokenizer_hash = options.tokenizer_hash;
  manifest.state = save->request.state;
  resolve_hashes(manifest.state);
  auto id = save->writer->finish(manifest, options.tokenizer_path);
  if (!id.ok())
    return fail_save(self, id.status().message());
  checkpoint_saved saved;
  saved.id = *id;
  saved.inner_step = manifest.state.inner_step;
  saved.outer_step = manifest.state.outer_step;
  saved.model_hash = kernels::to_hex(hash_of_units(manifest.units));
  saved.bytes = manifest.total_bytes();
  saved.seconds = static_cast<double>(time->steady_us() - save->since_us) / 1e6;
  log::info(name, "saved id={} reason={} bytes={} seconds={:.2f}", saved.id, manifest.reason, saved.bytes,
            saved.seconds);
  hashes[saved.inner_step] = saved.model_hash;
  while (hashes.size() > hashes_max)
    hashes.erase(hashes.begin());
  counters->checkpoints_saved.fetch_add(1, std::memory_order_relaxed);
  last_id = saved.id;
  last_failure.clear();
  tell(save->asked_by, std::move(saved));
  const prune_policy policy{options.keep, prune_policy{}.hours, options.max_storage_mb * 1'000'000};
  for (const auto& removed :
       prune_folder(options.folder, options.architecture, options.tokenizer_hash, policy, time->unix_us()))
    log::debug(name, "pruned id={}", removed);
  end_save(self);
}

void checkpointer_state::fail_save(pointer self, const std::string& why) {
  log::error(name, "save-failed step={} why={}", save->request.state.inner_step, why);
  last_failure = why;
  // The snapshot holds up the next COMMIT until it is closed.
  if (save->view.snapshot_id != 0)
    caf::anon_send(worker, close_snapshot{save->view.snapshot_id});
  if (save->promise.pending())
    save->promise.deliver(save_begun{save->request.state.inner_step, true});
  tell(save->asked_by, checkpoint_failed{save->request.state.inner_step, why});
  end_save(self);
}

void checkpointer_state::end_save(pointer self) {
  save.reset();
  if (!waiting.empty()) {
    save.emplace(std::move(waiting.front()));
    waiting.pop_front();
    return open_view(self);
  }
  for (auto& drain : drains)
    drain.deliver(caf::unit);
  drains.clear();
  if (auto promise = std::exchange(load_waiting, std::nullopt))
    load_now(self, std::move(*promise));
}

// ----------------------------------------------------------------------------------------------- loading

caf::result<restored> checkpointer_state::begin_load(pointer self) {
  if (load || load_waiting)
    return refuse(errc::not_ready, "another checkpoint is being loaded");
  auto promise = self->make_response_promise<restored>();
  if (save)
    load_waiting = promise;
  else
    load_now(self, promise);
  return promise;
}

void checkpointer_state::load_now(pointer self, caf::typed_response_promise<restored> promise) {
  load.emplace();
  load->promise = std::move(promise);
  load->candidates = list_folder(options.folder);
  for (const auto& entry : load->candidates)
    load->newest_line = std::max(load->newest_line, entry.line);
  // What the worker holds is what a checkpoint must have.
  self->request(worker, worker_timeout, open_snapshot{true})
      .then(
          [self](const snapshot_opened& view) {
            self->state.load->expected = view.tensors;
            self->request(self->state.worker, worker_timeout, close_snapshot{view.snapshot_id})
                .then([self] { self->state.try_next_candidate(self); },
                      [self](caf::error& e) { self->state.end_load(std::move(e)); });
          },
          [self](caf::error& e) { self->state.end_load(std::move(e)); });
}

kernels::status checkpointer_state::open_candidate(const std::string& id) {
  auto reader = checkpoint_reader::open(options.folder + "/" + id);
  if (!reader.ok())
    return reader.status();
  const auto& manifest = reader->manifest();
  if (manifest.architecture != options.architecture)
    return {kernels::code::unsupported,
            "it is of architecture " + model::architecture_id(manifest.architecture)};
  if (manifest.tokenizer_hash != options.tokenizer_hash)
    return {kernels::code::unsupported, "it was made with another tokenizer"};
  NEUROSHARD_TRY(reader->verify());
  for (const auto& entry : load->expected) {
    const auto* tensor = manifest.find(entry.name);
    if (tensor == nullptr || tensor->shape != entry.shape || tensor->length != entry.bytes)
      return {kernels::code::unsupported, "it lacks tensor " + entry.name};
  }
  load->reader.emplace(std::move(*reader));
  return {};
}

void checkpointer_state::candidate_failed(const std::string& id, const kernels::status& why) {
  load->reader.reset();
  if (why.why() != kernels::code::corrupt) {
    log::warn(name, "checkpoint-not-used id={} why={}", id, why.message());
    return;
  }
  auto aside = set_aside(options.folder, id);
  if (aside.ok()) {
    log::error(name, "checkpoint-damaged id={} why={} set-aside={}", id, why.message(), *aside);
    load->outcome.set_aside.push_back(*aside);
  } else {
    log::error(name, "checkpoint-damaged id={} why={} set-aside-failed={}", id, why.message(),
               aside.status().message());
  }
}

void checkpointer_state::try_next_candidate(pointer self) {
  while (load->candidate < load->candidates.size()) {
    const auto& id = load->candidates[load->candidate++].id;
    const auto opened = open_candidate(id);
    if (!opened.ok()) {
      candidate_failed(id, opened);
      continue;
    }
    load->outcome.found = true;
    load->outcome.id = id;
    load->outcome.state = load->reader->manifest().state;
    load->outcome.model_hash = kernels::to_hex(hash_of_units(load->reader->manifest().units));
    load->outer.clear();
    load->next = 0;
    return load_next(self);
  }
  if (load->touched)
    return end_load(refuse(errc::data_loss, "no checkpoint is sound, and one was already loaded in part"));
  end_load({});
}

void checkpointer_state::load_next(pointer self) {
  if (load->next == load->expected.size()) {
    self->request(worker, worker_timeout, finish_load{load->outcome.state.optimizer_step})
        .then([self] { self->state.restore_outer(self); },
              [self](caf::error& e) { self->state.end_load(std::move(e)); });
    return;
  }
  const auto& entry = load->expected[load->next];
  auto handle = make_host_tensor(kernels::dtype::f32, entry.shape, entry.bytes);
  if (!handle)
    return end_load(refuse(errc::overloaded, "no memory for tensor " + entry.name));
  const auto* tensor = load->reader->manifest().find(entry.name);
  const auto read = load->reader->read(*tensor, std::span(handle.view.as<std::byte>(), entry.bytes));
  if (!read.ok()) { // it changed since it was verified: the disk is failing
    load->outcome.found = false;
    candidate_failed(load->outcome.id, read);
    return try_next_candidate(self);
  }
  load->touched = true;
  ++load->next;
  self->request(worker, worker_timeout, write_tensor{entry.name, std::move(handle)})
      .then([self] { self->state.load_next(self); },
            [self](caf::error& e) { self->state.end_load(std::move(e)); });
}

/// The outer loop's tensors of the units that are held; of w0 all or none, and only while a round is under
/// way: the next round that begins takes it.
kernels::status checkpointer_state::read_outer_tensors() {
  const auto& manifest = load->reader->manifest();
  bool base = load->outcome.state.inner_step != load->outcome.state.round_first_step;
  for (const auto& entry : load->expected)
    base = base && (entry.name.find('/') != std::string::npos || manifest.find("diloco.w0/" + entry.name));
  load->outcome.has_round_base = base;
  for (const auto& tensor : manifest.tensors) {
    if (tensor.file != diloco_file || (tensor.name.starts_with("diloco.w0/") && !base))
      continue;
    const auto weight = tensor.name.substr(tensor.name.find('/') + 1);
    if (std::none_of(load->expected.begin(), load->expected.end(),
                     [&](const tensor_entry& entry) { return entry.name == weight; }))
      continue;
    auto handle = make_host_tensor(kernels::dtype::f32, tensor.shape, tensor.length);
    if (!handle)
      return {kernels::code::out_of_memory, "no memory for tensor " + tensor.name};
    NEUROSHARD_TRY(load->reader->read(tensor, std::span(handle.view.as<std::byte>(), tensor.length)));
    load->outer.push_back({tensor.name, std::move(handle)});
  }
  return {};
}

void checkpointer_state::restore_outer(pointer self) {
  if (!options.outer)
    return end_load({});
  if (auto read = read_outer_tensors(); !read.ok()) {
    load->outcome.found = false;
    candidate_failed(load->outcome.id, read);
    return try_next_candidate(self);
  }
  self->request(options.outer, worker_timeout, restore_outer_state{std::move(load->outer)})
      .then([self] { self->state.end_load({}); },
            [self](caf::error& e) { self->state.end_load(std::move(e)); });
}

void checkpointer_state::end_load(caf::error why) {
  auto ended = std::move(*load);
  load.reset();
  if (why) {
    ended.promise.deliver(std::move(why));
    return;
  }
  if (ended.outcome.found) {
    last_id = ended.outcome.id;
    log::info(name, "restored id={} step={} outer={}", ended.outcome.id, ended.outcome.state.inner_step,
              ended.outcome.state.outer_step);
  } else {
    ended.outcome.id.clear();
    ended.outcome.model_hash.clear();
    ended.outcome.state = {};
  }
  // What is written from now on is newer than all that is there, also than what could not be used.
  ended.outcome.state.taken_over = ended.newest_line;
  ended.promise.deliver(std::move(ended.outcome));
}

// ------------------------------------------------------------------------------------------------ others

checkpoint_list checkpointer_state::list() const {
  checkpoint_list found;
  for (const auto& entry : list_folder(options.folder)) {
    const auto reader = checkpoint_reader::open(options.folder + "/" + entry.id);
    if (!reader.ok())
      continue;
    const auto& manifest = reader->manifest();
    found.push_back(
        {entry.id, entry.inner_step, manifest.state.outer_step, manifest.created_unix_us, reader->bytes()});
  }
  return found;
}

actor_status checkpointer_state::report() const {
  actor_status status;
  status.name = name;
  status.state = last_failure.empty() ? actor_status::health::ok : actor_status::health::degraded;
  status.message = last_failure;
  status.values = {{"last", last_id},
                   {"saving", save ? "1" : "0"},
                   {"waiting", std::to_string(waiting.size())},
                   {"folder", options.folder}};
  return status;
}

checkpointer_actor::behavior_type checkpointer(checkpointer_state::pointer self, checkpointer_options options,
                                               layer_worker_actor worker, time_source_ptr time,
                                               counters_ptr counters) {
  auto& state = self->state;
  state.options = std::move(options);
  state.worker = std::move(worker);
  state.time = std::move(time);
  state.counters = std::move(counters);
  if (const size_t removed = remove_unfinished(state.options.folder); removed > 0)
    log::info(state.name, "removed-unfinished count={}", removed);
  return {
      [self](const save_checkpoint& request) { return self->state.begin_save(self, request); },
      [self](restore_latest) { return self->state.begin_load(self); },
      [self](list_atom) -> checkpoint_list { return self->state.list(); },
      [self](drain_atom) -> caf::result<void> {
        if (!self->state.save)
          return caf::unit;
        self->state.drains.push_back(self->make_response_promise<caf::unit_t>());
        return self->state.drains.back();
      },
      [self](status_atom) -> actor_status { return self->state.report(); },
  };
}

} // namespace neuroshard

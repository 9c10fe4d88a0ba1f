#include "actors/layer_worker/layer_worker.hpp"

#include "actors/common/kernel_error.hpp"
#include "actors/common/log.hpp"
#include "kernels/core/sha256.hpp"

#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr int64_t session_idle_us = 120'000'000;
constexpr int64_t snapshot_idle_us = 120'000'000;
constexpr auto tick_period = std::chrono::seconds(1);
/// Bulk work is last, yet a checkpoint must get ahead while training never pauses: one slice of it after so
/// many of training.
constexpr uint32_t training_slices_per_bulk = 4;

copy_hasher_actor::behavior_type copy_hasher(copy_hasher_actor::pointer) {
  return {[](const hash_copy& job) -> caf::result<std::string> {
    const auto bytes = job.copy->canonical();
    if (!bytes)
      return refuse(errc::internal, "the copy's bytes are gone");
    auto hash = kernels::to_hex(bytes->hash());
    // The copy is shared and read-only but for these bytes, which nobody else wants.
    std::const_pointer_cast<model::serving_copy>(job.copy)->drop_canonical();
    return hash;
  }};
}

caf::error overloaded() {
  problem what;
  what.message = "the layer worker's queue is full";
  what.reason = "overloaded";
  return refuse(errc::overloaded, std::move(what));
}

} // namespace

layer_worker_state::~layer_worker_state() {
  if (self == nullptr)
    return;
  const auto why = refuse(errc::draining, "the layer worker is stopping");
  fail_all(why);
  for (auto& [id, waiters] : hash_waiters)
    for (auto& waiter : waiters)
      waiter.deliver(why);
}

// -------------------------------------------------------------------------------------------- the queue

template <class Reply>
caf::result<answer_of<Reply>> layer_worker_state::enqueue(work<Reply> job, work_class urgency, work_lane lane,
                                                          int64_t deadline_us, step_part part,
                                                          uint64_t step) {
  if (draining)
    return refuse(errc::draining, "the layer worker is stopping");
  if (!queue.admits(urgency))
    return overloaded();
  const int64_t now_us = time->steady_us();
  if (deadline_us != 0 && deadline_us <= now_us)
    return refuse(errc::timeout, "the time for this request has passed");
  auto promise = self->make_response_promise<Reply>();
  auto waiting = std::make_unique<answering_job<Reply>>(std::move(job), promise);
  waiting->urgency = urgency;
  waiting->lane = lane;
  waiting->part = part;
  waiting->step = step;
  waiting->queued_us = now_us;
  queue.push(urgency, deadline_us, std::move(waiting));
  wake();
  return promise;
}

void layer_worker_state::enqueue_own(model::sliced<caf::error> job, bool sets_weights) {
  auto waiting = std::make_unique<own_job>(std::move(job));
  waiting->urgency = work_class::backward;
  waiting->lane = work_lane::training;
  waiting->sets_weights = sets_weights;
  waiting->queued_us = time->steady_us();
  queue.push(work_class::backward, 0, std::move(waiting));
  wake();
}

void layer_worker_state::need_weights() {
  if (weights_set || initializing || loading)
    return;
  initializing = true;
  enqueue_own(initialize(), true);
}

bool layer_worker_state::runnable(const device_job& job) const {
  if (initializing && !job.sets_weights && job.lane != work_lane::decode && job.lane != work_lane::prefill)
    return false;
  if (job.started_us != 0)
    return true;
  if (active[static_cast<size_t>(job.lane)])
    return false;
  const bool changes_weights =
      job.part == step_part::commit || (job.part == step_part::forward && binding.commits_first(job.step));
  return !changes_weights || (!view && !active[static_cast<size_t>(work_lane::copying)]);
}

device_job* layer_worker_state::choose() {
  device_job* best = nullptr;
  device_job* bulk = nullptr;
  for (const auto& job : active) {
    if (!job || !runnable(*job))
      continue;
    if (job->urgency == work_class::bulk)
      bulk = job.get();
    else if (best == nullptr || job->urgency < best->urgency)
      best = job.get();
  }
  const auto may_start = [this](const device_job_ptr& job) { return runnable(*job); };
  const auto waiting = queue.most_urgent(may_start);
  const auto start = [&](work_class of) {
    auto job = std::move(*queue.pop(of, may_start));
    auto& place = active[static_cast<size_t>(job->lane)];
    place = std::move(job);
    place->started_us = std::max<int64_t>(1, time->steady_us());
    return place.get();
  };
  if (waiting && *waiting != work_class::bulk && (best == nullptr || *waiting < best->urgency))
    best = start(*waiting);
  const bool bulk_is_due = bulk_debt >= training_slices_per_bulk;
  if (best != nullptr && (best->urgency <= work_class::prefill || !bulk_is_due))
    return best;
  if (bulk == nullptr && queue.size(work_class::bulk) > 0) {
    const auto bulk_may_start = [this](const device_job_ptr& job) {
      return job->urgency == work_class::bulk && runnable(*job);
    };
    if (queue.most_urgent(bulk_may_start))
      bulk = start(work_class::bulk);
  }
  return bulk != nullptr ? bulk : best;
}

void layer_worker_state::run_slice() {
  slice_pending = false;
  for (auto& late : queue.expire(time->steady_us()))
    late->fail(refuse(errc::timeout, "the time for this request has passed"));
  auto* job = choose();
  if (job == nullptr)
    return;
  bulk_debt = job->urgency == work_class::bulk ? 0 : bulk_debt + (job->lane == work_lane::training ? 1 : 0);
  const auto lane = static_cast<size_t>(job->lane);
  const int64_t before_us = time->steady_us();
  const bool done = job->resume();
  job->compute_us += time->steady_us() - before_us;
  if (done) {
    auto finished = std::move(active[lane]);
    finished->deliver();
  }
  open_waiting_views();
  wake();
}

void layer_worker_state::wake() {
  if (slice_pending)
    return;
  bool work_left =
      queue.most_urgent([this](const device_job_ptr& job) { return runnable(*job); }).has_value();
  for (const auto& job : active)
    work_left = work_left || (job && runnable(*job));
  // A message to itself: what has arrived meanwhile is queued before the next slice is chosen.
  if (work_left) {
    slice_pending = true;
    self->send(self, slice_atom_v);
  }
}

void layer_worker_state::fail_all(const caf::error& why) {
  for (auto& job : queue.remove([](const device_job_ptr&) { return true; }))
    job->fail(why);
  for (auto& job : active)
    if (auto ended = std::move(job))
      ended->fail(why);
  initializing = false;
  committing = false;
  for (auto& [request, promise] : std::exchange(view_waiters, {}))
    promise.deliver(why); // the COMMIT it waited for will not end
}

bool layer_worker_state::cancel_step(uint64_t step) {
  const auto belongs = [step](const device_job& job) {
    return job.part != step_part::none && (step == 0 || job.step == step);
  };
  const auto why = refuse(errc::aborted, "the step was discarded");
  for (auto& job : queue.remove([&](const device_job_ptr& job) { return belongs(*job); }))
    job->fail(why);
  auto& running = active[static_cast<size_t>(work_lane::training)];
  bool begun = false;
  // A COMMIT that has begun to change weights goes to its end: half of a step is no step.
  if (running && belongs(*running) && !committing) {
    auto ended = std::move(running);
    ended->fail(why);
    begun = true;
  }
  if (binding.under_way() && (step == 0 || binding.step() == step) && !committing) {
    binding.discard();
    begun = true;
  }
  return begun;
}

// --------------------------------------------------------------------------------------------- requests

caf::error layer_worker_state::check_header(const work_header& header, uint32_t layer_begin,
                                            uint32_t layer_end) const {
  if (!header.architecture_id.empty() && header.architecture_id != options.architecture_id) {
    problem what;
    what.reason = "architecture";
    what.message = "this node holds architecture " + options.architecture_id;
    return refuse(errc::failed_precondition, std::move(what));
  }
  const auto& held = stage->options();
  if (layer_begin != held.layer_begin || layer_end != held.layer_end)
    return refuse(errc::not_found, "layers " + std::to_string(held.layer_begin) + " to " +
                                       std::to_string(held.layer_end) + " are held here, as one");
  return {};
}

caf::result<forward_reply> layer_worker_state::on_forward(const forward_request& request) {
  if (auto refused = check_header(request.header, request.layer_begin, request.layer_end))
    return refused;
  const int64_t deadline_us = request.header.deadline_steady_us;
  switch (request.mode) {
  case forward_mode::bind:
    return on_bind(request);
  case forward_mode::train:
    if (!stage->options().train)
      return refuse(errc::failed_precondition, "this node does not train");
    if (loading) // also for good, when a checkpoint could be loaded only in part
      return refuse(errc::not_ready, "the weights are being loaded");
    need_weights();
    return enqueue<forward_reply>(train(request), work_class::forward, work_lane::training, deadline_us,
                                  step_part::forward, request.step);
  case forward_mode::score:
    return enqueue<forward_reply>(score(request), work_class::forward, work_lane::score, deadline_us);
  case forward_mode::prefill:
    return enqueue<forward_reply>(infer(request), work_class::prefill, work_lane::prefill, deadline_us);
  case forward_mode::decode:
    return enqueue<forward_reply>(infer(request), work_class::decode, work_lane::decode, deadline_us);
  }
  return bad_field("mode", "unknown");
}

caf::result<forward_reply> layer_worker_state::on_bind(const forward_request& request) {
  if (draining)
    return refuse(errc::draining, "the layer worker is stopping");
  if (!stage->options().train)
    return refuse(errc::failed_precondition, "this node does not train");
  const bool had_work = binding.under_way();
  if (auto refused = binding.bind(request.header.session_id, request.step, time->steady_us()))
    return refused;
  last_commit.reset();
  if (cancel_step(0) || had_work)
    enqueue_own(drop_accumulated(), false);
  forward_reply reply;
  reply.request_id = request.header.request_id;
  reply.report.optimizer_step = stage->optimizer_t();
  return reply;
}

caf::result<backward_reply> layer_worker_state::on_backward(const backward_request& request) {
  const int64_t deadline_us = request.header.deadline_steady_us;
  switch (request.action) {
  case backward_action::gradient:
    if (auto refused = check_header(request.header, request.layer_begin, request.layer_end))
      return refused;
    return enqueue<backward_reply>(gradient(request), work_class::backward, work_lane::training, deadline_us,
                                   step_part::gradient, request.step);
  case backward_action::commit:
    return enqueue<backward_reply>(commit(request), work_class::backward, work_lane::training, deadline_us,
                                   step_part::commit, request.step);
  case backward_action::discard:
  case backward_action::release:
    break;
  default:
    return bad_field("action", "unknown");
  }
  if (auto refused = binding.heard(request.header.session_id, time->steady_us()))
    return refused;
  const bool release = request.action == backward_action::release;
  const uint32_t inner_steps = binding.inner_steps();
  const bool begun = cancel_step(release ? 0 : request.step);
  if (release)
    binding.release();
  backward_reply reply;
  reply.request_id = request.header.request_id;
  reply.inner_steps = inner_steps;
  reply.report.optimizer_step = stage->optimizer_t();
  // A step that is in hand under another number stays. A COMMIT that is running ends first, so that the
  // answer tells whether the step counts.
  const bool nothing_held =
      !begun && !committing &&
      (binding.under_way() || (!stage->holds_gradient() && stage->saved_microbatches() == 0));
  if (nothing_held || draining)
    return reply;
  return enqueue<backward_reply>(drop_step(request), work_class::backward, work_lane::training, 0);
}

caf::result<gradient_sample_ptr> layer_worker_state::on_sample(const sample_gradient& request) {
  if (request.draws.size() > sample_draws_max)
    return bad_field("draws", "at most " + std::to_string(sample_draws_max));
  return enqueue<gradient_sample_ptr>(sample(request), work_class::backward, work_lane::training, 0,
                                      step_part::sample, request.step);
}

void layer_worker_state::on_tick() {
  const int64_t now_us = time->steady_us();
  const auto idle_since =
      std::chrono::steady_clock::time_point(std::chrono::microseconds(now_us - session_idle_us));
  if (const size_t freed = stage->expire(idle_since); freed > 0)
    log::debug(name, "idle-sessions-freed count={}", freed);
  if (const uint64_t evict_below = copies.retire(now_us); evict_below > 0)
    stage->retire_copies_before(evict_below);
  if (view && now_us - view->used_us >= snapshot_idle_us) {
    log::warn(name, "snapshot-abandoned id={} unread={}", view->id, view->unread.size());
    end_view();
  }
  const bool had_work = binding.under_way();
  const auto of_a_step = [](const device_job_ptr& job) { return job && job->part != step_part::none; };
  if (of_a_step(active[static_cast<size_t>(work_lane::training)]) || queue.most_urgent(of_a_step))
    binding.still_working(now_us); // a micro-batch of a large model may take minutes
  if (binding.expire(now_us)) {
    log::warn(name, "binding-expired");
    if (cancel_step(0) || had_work)
      enqueue_own(drop_accumulated(), false);
  }
  for (auto& late : queue.expire(now_us))
    late->fail(refuse(errc::timeout, "the time for this request has passed"));
}

actor_status layer_worker_state::report() const {
  actor_status status;
  status.name = name;
  size_t running = 0;
  for (const auto& job : active)
    running += job ? 1 : 0;
  const auto* newest = copies.newest();
  status.values = {{"queued", std::to_string(queue.size())},
                   {"running", std::to_string(running)},
                   {"sessions", std::to_string(stage->sessions())},
                   {"kv_blocks_free", std::to_string(stage->kv_blocks_free())},
                   {"kv_blocks_total", std::to_string(stage->kv_blocks_total())},
                   {"serving_copies", std::to_string(copies.size())},
                   {"serving_copy", std::to_string(newest ? newest->info.copy_id : 0)},
                   {"optimizer_step", std::to_string(stage->optimizer_t())},
                   {"bound", binding.bound() ? "1" : "0"}};
  return status;
}

layer_worker_actor::behavior_type layer_worker(layer_worker_state::pointer self,
                                               std::shared_ptr<std::unique_ptr<model::stage>> stage,
                                               layer_worker_options options, time_source_ptr time) {
  auto& state = self->state;
  state.self = self;
  state.stage = std::move(*stage);
  state.options = std::move(options);
  state.time = std::move(time);
  state.queue = work_queue<device_job_ptr>(state.options.queue_capacity);
  state.hasher = state.options.detached_hashing ? self->spawn<caf::detached + caf::linked>(copy_hasher)
                                                : self->spawn<caf::linked>(copy_hasher);
  if (state.options.valid_vocab > 0)
    if (auto set = state.stage->set_valid_vocab(state.options.valid_vocab); !set.ok())
      log::error(state.name, "valid-vocab why={}", set.message());
  self->delayed_send(self, tick_period, tick_atom_v);
  return {
      [self](const forward_request& request) { return self->state.on_forward(request); },
      [self](const backward_request& request) { return self->state.on_backward(request); },
      [self](const sample_gradient& request) { return self->state.on_sample(request); },
      [self](const optimizer_settings& settings) -> caf::result<void> {
        self->state.options.optimizer = settings;
        return caf::unit;
      },
      [self](const open_snapshot& request) { return self->state.on_open_snapshot(request); },
      [self](const read_snapshot& request) {
        self->state.need_weights();
        return self->state.enqueue<tensor_handle>(self->state.copy_tensor(request), work_class::bulk,
                                                  work_lane::copying, 0);
      },
      [self](const close_snapshot& request) -> caf::result<void> {
        if (self->state.view && self->state.view->id == request.snapshot_id)
          self->state.end_view();
        return caf::unit;
      },
      [self](const write_tensor& request) {
        return self->state.enqueue<caf::unit_t>(self->state.write(request), work_class::bulk,
                                                work_lane::training, 0);
      },
      [self](const finish_load& request) {
        return self->state.enqueue<caf::unit_t>(self->state.finish(request), work_class::bulk,
                                                work_lane::training, 0);
      },
      [self](const refresh_serving& request) -> caf::result<serving_info> {
        if (self->state.loading)
          return refuse(errc::not_ready, "the weights are being loaded");
        self->state.need_weights();
        // Before the next micro-batch, so that the copy is of the step boundary it was asked at.
        return self->state.enqueue<serving_info>(self->state.make_copy(request), work_class::backward,
                                                 work_lane::training, 0);
      },
      [self](lean_atom) {
        if (!self->state.stage->options().train && !self->state.draining)
          self->state.enqueue_own(self->state.let_go(), false);
      },
      [self](const serving_hash& request) { return self->state.on_serving_hash(request); },
      [self](const session_copy& request) { return self->state.on_session_copy(request); },
      [self](plan_atom) { return self->state.plan(); },
      [self](threads_atom, uint32_t count) -> caf::result<void> {
        if (self->state.options.set_threads)
          self->state.options.set_threads(count);
        return caf::unit;
      },
      [self](slice_atom) { self->state.run_slice(); },
      [self](tick_atom) {
        self->state.on_tick();
        self->delayed_send(self, tick_period, tick_atom_v);
      },
      [self](drain_atom) -> caf::result<void> {
        self->state.draining = true;
        self->state.fail_all(refuse(errc::draining, "the layer worker is stopping"));
        return caf::unit;
      },
      [self](status_atom) -> actor_status { return self->state.report(); },
  };
}

std::shared_ptr<std::unique_ptr<model::stage>> hand_over(std::unique_ptr<model::stage> stage) {
  return std::make_shared<std::unique_ptr<model::stage>>(std::move(stage));
}

} // namespace neuroshard

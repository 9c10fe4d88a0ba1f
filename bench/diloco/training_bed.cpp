#include "bench/diloco/training_bed.hpp"

#include "actors/trainer/step_batch.hpp"

#include <chrono>
#include <utility>

namespace neuroshard::bench {

namespace {

constexpr int64_t tick_ms = 100; ///< the exchangers' own

template <class T>
T value_of(kernels::result<T> made) {
  if (!made.ok())
    die(made.status().message());
  return std::move(*made);
}

} // namespace

training_bed::training_bed(training_plan how, const text::dataset& from)
    : plan(std::move(how)), data(from), architecture_id(model::architecture_id(plan.shape)),
      device_(open_cpu(plan.threads)) {}

training_bed::learner training_bed::make_learner(const std::vector<std::string>& node_ids) {
  model::stage_options held;
  held.layer_end = plan.shape.num_layers;
  held.embed = held.head = true;
  held.compute = plan.compute;
  held.train_tokens_max = static_cast<int64_t>(tokens_per_step());
  held.slice_flops = 1e12; // nobody waits for a slice
  layer_worker_options how;
  how.architecture_id = architecture_id;
  how.seed = plan.seed;
  how.valid_vocab = data.tokens.vocab_size();
  how.optimizer = plan.optimizer;
  how.detached_hashing = false;
  learner made;
  made.worker =
      keep(sys.spawn(layer_worker, hand_over(value_of(model::stage::make(device_, plan.shape, held))), how,
                     time_source_ptr{clock}));
  for (const auto& id : node_ids)
    made.orders.push_back(value_of(text::data_loader::make(data.source, {id, 100'000'000})));
  made.cursors.resize(node_ids.size());
  sched.run();
  return made;
}

work_header training_bed::header() const {
  work_header made;
  made.request_id = "diloco-bench-0001";
  made.session_id = std::string(32, '5');
  made.architecture_id = architecture_id;
  return made;
}

void training_bed::bind(const learner& whom, uint64_t last_step) {
  forward_request call;
  call.header = header();
  call.mode = forward_mode::bind;
  call.layer_end = static_cast<uint32_t>(plan.shape.num_layers);
  call.step = last_step;
  (void)must_ask<forward_reply>(whom.worker, std::move(call));
}

void training_bed::release(const learner& whom) {
  backward_request call;
  call.header = header();
  call.layer_end = static_cast<uint32_t>(plan.shape.num_layers);
  call.action = backward_action::release;
  (void)must_ask<backward_reply>(whom.worker, std::move(call));
}

double training_bed::step(learner& whom, uint64_t number) {
  double loss = 0;
  const size_t parts = whom.orders.size();
  for (size_t part = 0; part < parts; ++part) {
    auto drawn =
        value_of(draw_batch(whom.orders[part], whom.cursors[part], number, plan.rows, plan.seq, plan.rows));
    whom.cursors[part] = whom.orders[part].advance(whom.cursors[part], tokens_per_step());
    forward_request call;
    call.header = header();
    call.mode = forward_mode::train;
    call.layer_end = static_cast<uint32_t>(plan.shape.num_layers);
    call.apply_head = true;
    call.omit_tensors = true;
    call.token_ids = integers(std::move(drawn.parts.front().ids), plan.rows, plan.seq);
    call.labels = integers(std::move(drawn.parts.front().labels), plan.rows, plan.seq);
    call.microbatch_id = static_cast<uint32_t>(part);
    call.step = number;
    call.loss_scale = 1.0F / static_cast<float>(parts);
    call.last_microbatch = part + 1 == parts;
    loss += must_ask<forward_reply>(whom.worker, std::move(call)).loss / static_cast<double>(parts);
  }
  backward_request commit;
  commit.header = header();
  commit.layer_end = static_cast<uint32_t>(plan.shape.num_layers);
  commit.step = number;
  commit.action = backward_action::commit;
  (void)must_ask<backward_reply>(whom.worker, std::move(commit));
  return loss;
}

double training_bed::validate(const learner& whom) {
  (void)must_ask<serving_info>(whom.worker, refresh_serving{0, 0});
  const auto heldout = value_of(heldout_batch(whom.orders.front(), plan.seq, plan.rows));
  double sum = 0;
  for (const auto& part : heldout.parts) {
    forward_request call;
    call.header = header();
    call.mode = forward_mode::score;
    call.layer_end = static_cast<uint32_t>(plan.shape.num_layers);
    call.apply_head = true;
    call.token_ids = integers(part.ids, part.rows, plan.seq);
    call.labels = integers(part.labels, part.rows, plan.seq);
    const auto reply = must_ask<forward_reply>(whom.worker, std::move(call));
    sum += reply.loss * reply.label_count;
  }
  return sum / static_cast<double>(heldout.label_count);
}

void training_bed::copy_weights(const learner& from, const learner& to) {
  const auto opened = must_ask<snapshot_opened>(from.worker, open_snapshot{false});
  uint64_t t = 0;
  {
    const auto own = must_ask<snapshot_opened>(to.worker, open_snapshot{false});
    t = own.optimizer_step;
    (void)must_ask<caf::unit_t>(to.worker, close_snapshot{own.snapshot_id});
  }
  for (const auto& entry : opened.tensors) {
    auto value = must_ask<tensor_handle>(from.worker, read_snapshot{opened.snapshot_id, entry.name});
    (void)must_ask<caf::unit_t>(to.worker, write_tensor{entry.name, std::move(value)});
  }
  (void)must_ask<caf::unit_t>(to.worker, finish_load{t});
}

void training_bed::pass_ms(int64_t ms) {
  for (int64_t at = 0; at < ms; at += tick_ms) {
    clock->advance_us(tick_ms * 1'000);
    sched.advance_time(std::chrono::milliseconds(tick_ms));
    sched.run();
  }
}

} // namespace neuroshard::bench

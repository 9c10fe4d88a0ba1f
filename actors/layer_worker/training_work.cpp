// Training: forward, backward, COMMIT and DISCARD of the step in hand.
#include "actors/common/kernel_error.hpp"
#include "actors/common/learning_rate.hpp"
#include "actors/layer_worker/layer_worker.hpp"

#include <cmath>
#include <limits>

namespace neuroshard {

namespace {

constexpr double output_gradient_norm_max = 1e4; ///< spec grpc-api.md section 4

/// Sets a flag while it lives.
class raised {
public:
  explicit raised(bool& flag) noexcept : flag_(&flag) { flag = true; }
  ~raised() { *flag_ = false; }
  raised(const raised&) = delete;
  raised& operator=(const raised&) = delete;

private:
  bool* flag_;
};

template <class T>
caf::error check_elements(const T* values, int64_t count) {
  double sum_sq = 0;
  for (int64_t i = 0; i < count; ++i) {
    double value = 0;
    if constexpr (std::is_same_v<T, float>)
      value = values[i];
    else
      value = kernels::to_f32(values[i]);
    sum_sq += value * value;
  }
  if (!std::isfinite(sum_sq) || std::sqrt(sum_sq) > output_gradient_norm_max)
    return bad_field("grad_output", "the gradient is not finite, or its norm is above 10000");
  return {};
}

/// [batch, seq, d] of the width of the model, finite, of a bounded norm.
caf::error check_gradient(const tensor_handle& gradient, int64_t width) {
  if (!gradient)
    return {};
  const auto& view = gradient.view;
  if (view.rank != 3 || view.shape[2] != width || !view.contiguous() ||
      (view.type != kernels::dtype::f32 && view.type != kernels::dtype::bf16))
    return bad_field("grad_output", "must be f32 or bf16 [batch, seq, hidden]");
  if (!gradient.on_host())
    return {}; // on the device already: made by this node's own stage
  return view.type == kernels::dtype::f32 ? check_elements(view.as<const float>(), view.elements())
                                          : check_elements(view.as<const kernels::bf16>(), view.elements());
}

/// Shape and integers of a TRAIN request as the model takes them.
caf::expected<model::train_input> train_input_of(const forward_request& request, const model::stage& stage) {
  auto shape = shape_of(request, stage.shape().hidden_dim, stage.options().train_tokens_max);
  if (!shape)
    return std::move(shape.error());
  const auto context = static_cast<int32_t>(stage.shape().max_seq_len);
  const auto vocab = static_cast<int32_t>(stage.shape().vocab_capacity);
  auto ids = integers_of(request.token_ids, "token_ids", *shape, 0, vocab - 1, 0);
  if (!ids)
    return std::move(ids.error());
  auto positions = integers_of(request.positions, "positions", *shape, 0, context - 1, 0);
  if (!positions)
    return std::move(positions.error());
  auto labels = integers_of(request.labels, "labels", *shape, 0, vocab - 1, no_label);
  if (!labels)
    return std::move(labels.error());
  if (request.apply_head && labels->empty())
    return bad_field("labels", "the head stage needs labels");
  if (shape->seq > context)
    return bad_field("token_ids", "longer than the context");
  if (!(request.loss_scale > 0 && request.loss_scale <= 1))
    return bad_field("loss_scale", "must be in (0, 1]");
  model::train_input input;
  input.key = {request.header.session_id, request.step, request.microbatch_id};
  input.sequences = shape->batch;
  input.positions_per_sequence = shape->seq;
  input.token_ids = std::move(*ids);
  input.hidden = flat(request.hidden);
  input.positions = std::move(*positions);
  input.lengths = shape->lengths;
  if (request.apply_head)
    input.labels = std::move(*labels);
  input.loss_scale = request.loss_scale;
  input.keep_input_gradient = request.omit_tensors;
  input.reply = request.reply_dtype;
  return input;
}

} // namespace

model::sliced<caf::error> layer_worker_state::report_ready(stage_report& to) {
  to.ready = binding.ready();
  to.optimizer_step = stage->optimizer_t();
  if (!to.ready)
    co_return caf::error{};
  auto norm = co_await stage->gradient_norm_sq();
  if (norm.ok())
    to.grad_norm_sq = *norm;
  else if (norm.status().why() == kernels::code::not_finite)
    to.grad_norm_sq = std::numeric_limits<double>::quiet_NaN(); // the driver discards the step
  else
    co_return refuse(norm.status());
  co_return caf::error{};
}

layer_worker_state::work<forward_reply> layer_worker_state::train(forward_request request) {
  if (auto refused = binding.heard(request.header.session_id, time->steady_us()))
    co_return refused;
  if (auto refused = binding.may_forward(request.step, request.microbatch_id))
    co_return refused;
  if (request.apply_head != stage->options().head)
    co_return bad_field("apply_head", "the stage that holds the head runs it, and no other");
  auto input = train_input_of(request, *stage);
  if (!input)
    co_return std::move(input.error());
  if (binding.commits_first(request.step)) {
    auto refused = co_await commit_step(binding.step());
    if (refused)
      co_return refused;
  }
  const int64_t batch = input->sequences;
  const int64_t seq = input->positions_per_sequence;
  binding.begin(request.step);
  auto output = co_await stage->forward_train(std::move(*input));
  if (!output.ok())
    co_return refuse(output.status());
  binding.forwarded(request.step, request.microbatch_id, request.last_microbatch);
  if (stage->options().head) // which runs its own backward at once
    binding.accumulated(request.step, request.microbatch_id);
  forward_reply reply;
  reply.request_id = request.header.request_id;
  reply.loss = output->loss;
  reply.label_count = output->label_count;
  if (output->hidden && !request.omit_tensors)
    reply.hidden = handle_of(output->hidden, {batch, seq, stage->shape().hidden_dim});
  reply.grad_hidden = output->grad_input
                          ? handle_of(output->grad_input, {batch, seq, stage->shape().hidden_dim})
                          : tensor_handle{};
  auto refused = co_await report_ready(reply.report);
  if (refused)
    co_return refused;
  co_return reply;
}

layer_worker_state::work<backward_reply> layer_worker_state::gradient(backward_request request) {
  if (auto refused = binding.heard(request.header.session_id, time->steady_us()))
    co_return refused;
  if (auto refused = check_gradient(request.grad_output, stage->shape().hidden_dim))
    co_return refused;
  model::activations output_gradient;
  int64_t batch = 0;
  int64_t seq = 0;
  if (request.grad_output) {
    output_gradient = flat(request.grad_output);
    batch = request.grad_output.view.shape[0];
    seq = request.grad_output.view.shape[1];
  }
  if (request.step == 0 || request.step != binding.step())
    co_return refuse(errc::not_found,
                     "no activations of step " + std::to_string(request.step) + " are kept here");
  model::microbatch_key key{request.header.session_id, request.step, request.microbatch_id};
  auto input_gradient =
      co_await stage->backward(std::move(key), std::move(output_gradient), request.reply_dtype);
  if (!input_gradient.ok()) {
    const auto why = input_gradient.status();
    // The model knows a key it does not hold as an invalid argument; to a caller it is something lost.
    co_return why.why() == kernels::code::invalid_argument ? refuse(errc::not_found, why.message())
                                                           : refuse(why);
  }
  binding.accumulated(request.step, request.microbatch_id);
  backward_reply reply;
  reply.request_id = request.header.request_id;
  if (*input_gradient) {
    const int64_t rows = input_gradient->view.shape[0];
    const bool shaped = batch > 0 && batch * seq == rows;
    reply.grad_input =
        handle_of(*input_gradient, {shaped ? batch : 1, shaped ? seq : rows, stage->shape().hidden_dim});
  }
  reply.inner_steps = binding.inner_steps();
  auto refused = co_await report_ready(reply.report);
  if (refused)
    co_return refused;
  co_return reply;
}

layer_worker_state::work<gradient_sample_ptr> layer_worker_state::sample(sample_gradient request) {
  if (auto refused = binding.heard(request.session_id, time->steady_us()))
    co_return refused;
  if (auto refused = binding.may_commit(request.step)) // what can be committed can be sampled
    co_return refused;
  auto probe = co_await stage->sample_gradient(std::move(request.draws));
  if (!probe.ok())
    co_return refuse(probe.status());
  auto told = std::make_shared<gradient_sample>();
  const auto units = stage->units();
  for (size_t i = 0; i < units.size(); ++i)
    told->unit_norms.emplace_back(units[i].name, probe->unit_norms[i]);
  told->values = std::move(probe->values);
  co_return gradient_sample_ptr{std::move(told)};
}

model::sliced<caf::error> layer_worker_state::commit_step(uint64_t step) {
  const raised flag(committing);
  model::optimizer_step how;
  const auto& rate = options.optimizer;
  how.learning_rate =
      static_cast<float>(learning_rate_at(rate.learning_rate, rate.warmup_steps, rate.decay_steps, step));
  auto applied = co_await stage->apply(how);
  if (!applied.ok()) {
    const auto why = applied.status();
    (void)co_await stage->discard(); // weights and moments are as before
    binding.discard();
    co_return refuse(why);
  }
  binding.committed(step);
  backward_reply reply;
  reply.inner_steps = binding.inner_steps();
  reply.report.ready = true;
  reply.report.grad_norm_sq = applied->grad_norm_sq;
  reply.report.optimizer_step = applied->t;
  last_commit = std::move(reply);
  co_return caf::error{};
}

layer_worker_state::work<backward_reply> layer_worker_state::commit(backward_request request) {
  if (auto refused = binding.heard(request.header.session_id, time->steady_us()))
    co_return refused;
  if (!(binding.committed_before(request.step) && last_commit)) {
    if (auto refused = binding.may_commit(request.step))
      co_return refused;
    auto refused = co_await commit_step(request.step);
    if (refused)
      co_return refused;
  }
  backward_reply reply = *last_commit;
  reply.request_id = request.header.request_id;
  co_return reply;
}

model::sliced<caf::error> layer_worker_state::drop_accumulated() {
  auto dropped = co_await stage->discard();
  if (!dropped.ok())
    co_return refuse(dropped);
  co_return caf::error{};
}

layer_worker_state::work<backward_reply> layer_worker_state::drop_step(backward_request request) {
  backward_reply reply;
  reply.request_id = request.header.request_id;
  reply.inner_steps = binding.inner_steps();
  // A COMMIT that was running has ended meanwhile; a step of another number stays.
  const bool ours =
      request.action == backward_action::release || !binding.under_way() || binding.step() == request.step;
  if (ours && (stage->holds_gradient() || stage->saved_microbatches() > 0)) {
    binding.discard();
    auto refused = co_await drop_accumulated();
    if (refused)
      co_return refused;
  }
  reply.report.optimizer_step = stage->optimizer_t();
  co_return reply;
}

} // namespace neuroshard

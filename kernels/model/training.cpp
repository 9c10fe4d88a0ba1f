#include "kernels/model/stage_state.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::model {

namespace {

/// The views of one micro-batch, made from its slot and the shared scratch.
struct step_views {
  tensor ids, positions, lengths, labels;
  whole_sequences whole;
  block_scratch scratch;
  tensor gradient; ///< act [T,d]
  tensor normed;   ///< act [T,d], input of the head
  tensor rstd;     ///< f32 [T]
  tensor wire;     ///< f32 [T,d]
};

step_views views_of(const stage_state& s, const train_slot& slot) {
  const engine& e = *s.e;
  const architecture& a = s.shape;
  const int64_t rows = slot.sequences * slot.positions_per_sequence;
  const auto integers = [&](uint64_t at, int64_t count) {
    return make_tensor(at_offset(slot.memory, at), dtype::i32, {count});
  };
  const auto shared = [&](uint64_t at, dtype type, int64_t columns) {
    return make_tensor(at_offset(s.shared.memory, at), type, {rows, columns});
  };
  step_views v;
  v.ids = integers(s.slot_at.ids, rows);
  v.positions = integers(s.slot_at.positions, rows);
  v.lengths = slot.has_lengths ? integers(s.slot_at.lengths, slot.sequences) : tensor{};
  v.labels = integers(s.slot_at.labels, rows);
  v.whole = {slot.sequences, v.positions, v.lengths};
  v.scratch.wide = shared(s.shared.wide, e.act(), a.ffn_dim);
  v.scratch.narrow = shared(s.shared.narrow, e.act(), a.hidden_dim);
  v.scratch.dqkv = shared(s.shared.dqkv, e.act(), a.q_width() + 2 * a.kv_width());
  v.scratch.dattended = shared(s.shared.dattended, e.act(), a.q_width());
  v.gradient = shared(s.shared.gradient, e.act(), a.hidden_dim);
  v.normed = shared(s.shared.normed, e.act(), a.hidden_dim);
  v.rstd = make_tensor(at_offset(s.shared.memory, s.shared.rstd), dtype::f32, {rows});
  v.wire = shared(s.shared.wire, dtype::f32, a.hidden_dim);
  return v;
}

tensor input_of(const stage_state& s, const train_slot& slot, size_t block) {
  const int64_t rows = slot.sequences * slot.positions_per_sequence;
  return make_tensor(at_offset(slot.memory, s.slot_at.inputs[block]), s.e->act(), {rows, s.shape.hidden_dim});
}

block_activations block_of(const stage_state& s, const train_slot& slot, size_t block) {
  const int64_t rows = slot.sequences * slot.positions_per_sequence;
  block_activations a = s.recompute ? s.shared.recomputed.place(*s.e, s.shared.memory, rows, slot.sequences)
                                    : s.slot_at.blocks[block].place(*s.e, slot.memory, rows, slot.sequences);
  a.input = input_of(s, slot, block);
  return a;
}

/// Frees a slot unless the micro-batch got through.
class slot_guard {
public:
  explicit slot_guard(train_slot& slot) noexcept : slot_(&slot) {}
  ~slot_guard() {
    if (slot_ != nullptr)
      slot_->used = false;
  }
  slot_guard(const slot_guard&) = delete;
  slot_guard& operator=(const slot_guard&) = delete;
  void keep() noexcept { slot_ = nullptr; }

private:
  train_slot* slot_;
};

/// While it lives the gradient is in between: a backward that does not end in commit() leaves it broken.
class gradient_section {
public:
  explicit gradient_section(stage_state& s) noexcept : state_(&s) {
    s.gradient_held = true;
    s.gradient_broken = true;
    s.norm_sq.reset();
  }
  void commit() noexcept { state_->gradient_broken = false; }

private:
  stage_state* state_;
};

/// Blocks [0, L) from the first block's input to `normed` (with the head) or to the last block's output.
sliced<status> forward_blocks(stage_state& s, const train_slot& slot, const step_views& v) {
  engine& e = *s.e;
  const size_t layers = s.blocks.size();
  const tensor none;
  const auto open = [&](size_t block, tensor& gain, tensor& normed, tensor& rstd) {
    if (block < layers) {
      const block_activations a = block_of(s, slot, block);
      gain = s.blocks[block].attn_norm;
      normed = a.normed;
      rstd = a.rstd;
    } else {
      gain = s.final_norm();
      normed = v.normed;
      rstd = v.rstd;
    }
  };
  tensor gain, normed, rstd;
  if (layers > 0 || s.options.head) {
    open(0, gain, normed, rstd);
    NEUROSHARD_CO_TRY(e.rms_norm(input_of(s, slot, 0), none, none, gain, normed, rstd));
  }
  for (size_t l = 0; l < layers; ++l) {
    const block_activations a = block_of(s, slot, l);
    const tensor out = v.scratch.narrow;
    NEUROSHARD_CO_TRY(co_await block_forward(e, s.blocks[l], a, &v.whole, nullptr, out));
    if (l + 1 < layers || s.options.head) {
      open(l + 1, gain, normed, rstd);
      NEUROSHARD_CO_TRY(e.rms_norm(out, a.hidden, input_of(s, slot, l + 1), gain, normed, rstd));
    } else {
      kernels::add_args sum;
      sum.a = a.hidden;
      sum.b = out;
      sum.out = input_of(s, slot, l + 1);
      NEUROSHARD_CO_TRY(e.ops().add(e.q(), sum));
    }
  }
  co_return status{};
}

/// From `gradient` of the last block's output to that of the first one's input, and into the embedding where
/// it is held.
sliced<status> backward_blocks(stage_state& s, const train_slot& slot, const step_views& v) {
  engine& e = *s.e;
  const tensor none;
  for (size_t l = s.blocks.size(); l-- > 0;) {
    const block_activations a = block_of(s, slot, l);
    if (s.recompute) {
      NEUROSHARD_CO_TRY(e.rms_norm(a.input, none, none, s.blocks[l].attn_norm, a.normed, a.rstd));
      NEUROSHARD_CO_TRY(co_await block_forward(e, s.blocks[l], a, &v.whole, nullptr, v.scratch.narrow, true));
    }
    NEUROSHARD_CO_TRY(
        co_await block_backward(e, s.blocks[l], s.block_grads[l], a, v.whole, v.scratch, v.gradient));
  }
  if (s.options.embed) {
    kernels::embedding_backward_args args;
    args.ids = v.ids;
    args.dout = v.gradient;
    const unit_store& store = s.stores[*s.embed_at];
    args.dtable = store.view(store.gradient, 0);
    auto scratch = e.workspace(e.ops().embedding_backward_workspace(e.d(), args));
    if (!scratch.ok())
      co_return scratch.status();
    args.workspace = *scratch;
    NEUROSHARD_CO_TRY(e.ops().embedding_backward(e.q(), args));
  }
  co_return status{};
}

status check_train(const stage_state& s, const train_input& in, uint32_t& labels) {
  if (!s.options.train)
    return {code::invalid_argument, "this stage does not train"};
  if (s.training_busy || s.loading)
    return busy_error("a micro-batch cannot be started");
  if (s.weights_broken)
    return {code::invalid_argument, "an optimizer step ended half way; the weights must be loaded again"};
  if (s.gradient_broken)
    return {code::invalid_argument, "a step ended half way and must be discarded first"};
  const batch_shape shape{in.sequences, in.positions_per_sequence};
  auto counted =
      check_batch(s, shape, {in.token_ids, in.hidden, in.positions, in.lengths, in.labels}, s.options.head);
  if (!counted.ok())
    return counted.status();
  labels = *counted;
  if (shape.rows() > s.options.train_tokens_max)
    return {code::invalid_argument, "a micro-batch of " + std::to_string(shape.rows()) +
                                        " tokens is above the " + std::to_string(s.options.train_tokens_max) +
                                        " this stage is laid out for"};
  if (!(in.loss_scale > 0 && in.loss_scale <= 1))
    return {code::invalid_argument, "loss_scale must be above 0 and at most 1"};
  for (const train_slot& slot : s.slots)
    if (slot.used && slot.key == in.key)
      return {code::invalid_argument, "this micro-batch is already held"};
  for (const kept_gradient& kept : s.kept)
    if (kept.used && kept.key == in.key)
      return {code::invalid_argument, "this micro-batch is already held"};
  return {};
}

template <class Held>
Held* unused(std::vector<Held>& all) {
  const auto found = std::find_if(all.begin(), all.end(), [](const Held& h) { return !h.used; });
  return found == all.end() ? nullptr : &*found;
}

/// Loss of the head and gradients of the whole stage, for the activations that are in the slot.
sliced<status> loss_and_backward(stage_state& s, const train_slot& slot, const step_views& v, float scale,
                                 double& loss_sum) {
  engine& e = *s.e;
  NEUROSHARD_CO_TRY(e.fill_zero(s.shared.tile.loss_sum));
  gradient_section section(s);
  NEUROSHARD_CO_TRY(co_await head_loss(e, v.normed, s.head, v.labels, s.valid_vocab, scale, s.shared.tile,
                                       false, v.scratch.narrow, s.head_gradient));
  NEUROSHARD_CO_TRY(e.queue().copy(&loss_sum, s.shared.tile.loss_sum.data, sizeof(double)));
  const tensor none;
  NEUROSHARD_CO_TRY(e.rms_norm_backward(v.scratch.narrow, input_of(s, slot, s.blocks.size()), s.final_norm(),
                                        v.rstd, none, v.gradient, s.final_norm_gradient()));
  NEUROSHARD_CO_TRY(co_await backward_blocks(s, slot, v));
  NEUROSHARD_CO_TRY(e.queue().wait());
  if (!std::isfinite(loss_sum))
    co_return status(code::not_finite, "the loss is not finite");
  section.commit();
  co_return status{};
}

} // namespace

sliced<result<train_output>> run_forward_train(stage_state& s, train_input input) {
  uint32_t label_count = 0;
  NEUROSHARD_CO_TRY(check_train(s, input, label_count));
  train_slot* slot = unused(s.slots);
  const bool keeps = s.options.head && !s.options.embed && input.keep_input_gradient;
  kept_gradient* kept = keeps ? unused(s.kept) : nullptr;
  if (slot == nullptr || (keeps && kept == nullptr))
    co_return status(code::out_of_memory, "as many micro-batches are under way as this stage has room for (" +
                                              std::to_string(s.options.train_slots) + ")");
  const busy_guard busy(s.training_busy);
  engine& e = *s.e;
  slot->used = true;
  slot->key = input.key;
  slot->sequences = input.sequences;
  slot->positions_per_sequence = input.positions_per_sequence;
  slot->has_lengths = !input.lengths.empty();
  slot_guard guard(*slot);
  const batch_shape shape{input.sequences, input.positions_per_sequence};
  if (input.positions.empty())
    input.positions = default_positions(shape);
  double loss_sum = 0;
  const wait_at_end drain(e);

  const step_views v = views_of(s, *slot);
  NEUROSHARD_CO_TRY(e.upload(v.positions, input.positions.data()));
  if (slot->has_lengths)
    NEUROSHARD_CO_TRY(e.upload(v.lengths, input.lengths.data()));
  if (s.options.head)
    NEUROSHARD_CO_TRY(e.upload(v.labels, input.labels.data()));
  if (s.options.embed) {
    NEUROSHARD_CO_TRY(e.upload(v.ids, input.token_ids.data()));
    kernels::embedding_args args;
    args.ids = v.ids;
    args.table = s.gain(*s.embed_at, 0);
    args.out = input_of(s, *slot, 0);
    NEUROSHARD_CO_TRY(e.ops().embedding(e.q(), args));
  } else {
    NEUROSHARD_CO_TRY(import_rows(e, input.hidden, input_of(s, *slot, 0), v.wire));
  }
  NEUROSHARD_CO_TRY(co_await forward_blocks(s, *slot, v));

  train_output out;
  if (!s.options.head) {
    auto hidden = export_rows(e, input_of(s, *slot, s.blocks.size()), input.reply, v.wire);
    if (!hidden.ok())
      co_return hidden.status();
    out.hidden = std::move(*hidden);
    guard.keep();
    co_return out;
  }
  const float scale = label_count == 0 ? 0.0F : input.loss_scale / static_cast<float>(label_count);
  NEUROSHARD_CO_TRY(co_await loss_and_backward(s, *slot, v, scale, loss_sum));
  out.label_count = label_count;
  out.loss = label_count == 0 ? 0 : loss_sum / label_count;
  if (kept != nullptr) {
    NEUROSHARD_CO_TRY(e.queue().copy(kept->memory->address, v.gradient.data, v.gradient.bytes()));
    kept->used = true;
    kept->key = input.key;
    kept->rows = shape.rows();
  } else if (!s.options.embed) {
    auto gradient = export_rows(e, v.gradient, input.reply, v.wire);
    if (!gradient.ok())
      co_return gradient.status();
    out.grad_input = std::move(*gradient);
  }
  co_return out;
}

namespace {

/// The published limits of a received gradient: finite, L2 norm at most 1e4.
status check_gradient(stage_state& s, tensor gradient, tensor wire) {
  constexpr double norm_max = 1e4;
  engine& e = *s.e;
  tensor values = gradient;
  if (gradient.type != dtype::f32) {
    values = wire;
    NEUROSHARD_TRY(e.convert(gradient, values));
  }
  const tensor sum = make_tensor(at_offset(s.shared.memory, s.shared.scalars), dtype::f64, {1});
  NEUROSHARD_TRY(e.fill_zero(sum));
  kernels::grad_norm_args args;
  args.gradients = std::span(&values, 1);
  args.sum_sq = sum;
  auto scratch = e.workspace(e.ops().grad_norm_workspace(e.d(), args));
  if (!scratch.ok())
    return scratch.status();
  args.workspace = *scratch;
  NEUROSHARD_TRY(e.ops().grad_norm(e.q(), args));
  double norm_sq = 0;
  NEUROSHARD_TRY(e.queue().copy(&norm_sq, sum.data, sizeof(double)));
  NEUROSHARD_TRY(e.queue().wait());
  if (!(norm_sq <= norm_max * norm_max)) // also when it is no number
    return {code::invalid_argument, "the gradient received is not finite or its L2 norm is above 10000"};
  return {};
}

result<activations> take_kept(stage_state& s, kept_gradient& kept, dtype reply) {
  const tensor rows = make_tensor(kept.memory->address, s.e->act(), {kept.rows, s.shape.hidden_dim});
  const tensor wire =
      make_tensor(at_offset(s.shared.memory, s.shared.wire), dtype::f32, {kept.rows, s.shape.hidden_dim});
  auto out = export_rows(*s.e, rows, reply, wire);
  if (out.ok())
    kept.used = false;
  return out;
}

} // namespace

sliced<result<activations>> run_backward(stage_state& s, microbatch_key key, activations grad_output,
                                         dtype reply) {
  if (s.training_busy || s.loading)
    co_return busy_error("a backward cannot be started");
  if (s.gradient_broken)
    co_return status(code::invalid_argument, "a step ended half way and must be discarded first");
  const busy_guard busy(s.training_busy);
  for (kept_gradient& kept : s.kept)
    if (kept.used && kept.key == key)
      co_return take_kept(s, kept, reply);
  const auto slot = std::find_if(s.slots.begin(), s.slots.end(),
                                 [&](const train_slot& held) { return held.used && held.key == key; });
  if (slot == s.slots.end())
    co_return status(code::invalid_argument, "no activations are held for this micro-batch");
  if (!grad_output)
    co_return status(code::invalid_argument, "a stage without the head needs the gradient of its output");
  engine& e = *s.e;
  const wait_at_end drain(e);
  const step_views v = views_of(s, *slot);
  NEUROSHARD_CO_TRY(import_rows(e, grad_output, v.gradient, v.wire));
  NEUROSHARD_CO_TRY(check_gradient(s, v.gradient, v.wire));
  const slot_guard guard(*slot);
  gradient_section section(s);
  NEUROSHARD_CO_TRY(co_await backward_blocks(s, *slot, v));
  if (s.options.embed) {
    NEUROSHARD_CO_TRY(e.queue().wait());
    section.commit();
    co_return activations{};
  }
  auto out = export_rows(e, v.gradient, reply, v.wire);
  if (out.ok())
    section.commit();
  co_return out;
}

} // namespace neuroshard::model

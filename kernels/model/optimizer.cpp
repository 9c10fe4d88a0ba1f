#include "kernels/model/stage_state.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::model {

namespace {

/// Elements of one call of the optimizer or of the norm: about 5 ms at the speed of memory.
constexpr int64_t piece_elements = 1 << 22;

tensor sum_of(const stage_state& s) {
  return make_tensor(at_offset(s.shared.memory, s.shared.scalars), dtype::f64, {1});
}

tensor factor_of(const stage_state& s) {
  return make_tensor(at_offset(s.shared.memory, s.shared.scalars + 16), dtype::f32, {1});
}

sliced<result<double>> measure(stage_state& s) {
  engine& e = *s.e;
  double norm_sq = 0;
  const wait_at_end drain(e);
  NEUROSHARD_CO_TRY(e.fill_zero(sum_of(s)));
  for (const unit_store& store : s.stores)
    NEUROSHARD_CO_TRY(co_await add_squares(e, store, sum_of(s)));
  NEUROSHARD_CO_TRY(e.queue().copy(&norm_sq, sum_of(s).data, sizeof(double)));
  NEUROSHARD_CO_TRY(e.queue().wait());
  if (!std::isfinite(norm_sq))
    co_return status(code::not_finite, "the gradient is not finite");
  s.norm_sq = norm_sq;
  co_return norm_sq;
}

/// One optimizer item, split so that no call is long.
struct item_walker {
  const stage_state& s;
  size_t store = 0, parameter = 0;
  int64_t first = 0;

  /// The next items of together at most piece_elements; empty at the end.
  void next(std::vector<kernels::adamw_item>& items) {
    items.clear();
    int64_t room = piece_elements;
    while (room > 0 && store < s.stores.size()) {
      const unit_store& u = s.stores[store];
      if (parameter == u.layout.parameters.size()) {
        ++store;
        parameter = 0;
        continue;
      }
      const auto& p = u.layout.parameters[parameter];
      const int64_t count = std::min(room, p.count - first);
      const auto offset = static_cast<uint64_t>(p.offset + first) * sizeof(float);
      const auto piece = [&](const kernels::buffer_ptr& memory) {
        return make_tensor(at_offset(memory, offset), dtype::f32, {count});
      };
      items.push_back({piece(u.master), piece(u.gradient), piece(u.first_moment), piece(u.second_moment),
                       p.weight_decay});
      room -= count;
      first += count;
      if (first == p.count) {
        ++parameter;
        first = 0;
      }
    }
  }
};

status check_apply(const stage_state& s, const optimizer_step& step) {
  if (!s.options.train)
    return {code::invalid_argument, "this stage does not train"};
  if (s.training_busy || s.loading || s.copying || s.scoring_inner)
    return busy_error("an optimizer step cannot be taken");
  if (s.weights_broken)
    return {code::invalid_argument, "an optimizer step ended half way; the weights must be loaded again"};
  if (s.gradient_broken)
    return {code::invalid_argument, "a step ended half way and must be discarded first"};
  if (!s.gradient_held)
    return {code::invalid_argument, "there is no gradient to apply"};
  const bool sound = std::isfinite(step.learning_rate) && step.learning_rate >= 0 && step.beta1 >= 0 &&
                     step.beta1 < 1 && step.beta2 >= 0 && step.beta2 < 1 && step.eps > 0 &&
                     step.clip_norm >= 0;
  return sound ? status{} : status(code::invalid_argument, "the optimizer's settings are out of range");
}

} // namespace

sliced<status> add_squares(engine& e, const unit_store& store, tensor sum) {
  for (int64_t first = 0; first < store.layout.count; first += piece_elements) {
    const int64_t count = std::min(piece_elements, store.layout.count - first);
    const tensor piece = make_tensor(at_offset(store.gradient, static_cast<uint64_t>(first) * sizeof(float)),
                                     dtype::f32, {count});
    kernels::grad_norm_args args;
    args.gradients = std::span(&piece, 1);
    args.sum_sq = sum;
    auto scratch = e.workspace(e.ops().grad_norm_workspace(e.d(), args));
    if (!scratch.ok())
      co_return scratch.status();
    args.workspace = *scratch;
    NEUROSHARD_CO_TRY(e.ops().grad_norm(e.q(), args));
    if (e.spent_bytes(static_cast<double>(piece.bytes())))
      co_await end_slice{};
  }
  co_return status{};
}

sliced<result<double>> run_gradient_norm(stage_state& s) {
  if (!s.options.train)
    co_return status(code::invalid_argument, "this stage does not train");
  if (s.norm_sq)
    co_return *s.norm_sq;
  if (s.training_busy || s.loading)
    co_return busy_error("the gradient cannot be measured");
  const busy_guard busy(s.training_busy);
  co_return co_await measure(s);
}

sliced<result<apply_output>> run_apply(stage_state& s, optimizer_step step) {
  NEUROSHARD_CO_TRY(check_apply(s, step));
  const busy_guard busy(s.training_busy);
  const busy_guard applying(s.applying);
  engine& e = *s.e;
  if (!s.norm_sq) {
    auto measured = co_await measure(s);
    if (!measured.ok())
      co_return measured.status();
  }
  apply_output out;
  out.grad_norm_sq = *s.norm_sq;
  kernels::clip_factor_args clip;
  clip.sum_sq = sum_of(s);
  int64_t local = 0;
  for (const unit_store& store : s.stores)
    local += store.layout.count;
  const double share = static_cast<double>(local) / static_cast<double>(s.shape.parameters());
  clip.norm_max = static_cast<float>(step.clip_norm > 0 ? step.clip_norm : std::sqrt(share));
  clip.factor = factor_of(s);
  float factor = 1;
  const wait_at_end drain(e);
  // The sum may be from an earlier measurement, and the scalars used for something else since.
  NEUROSHARD_CO_TRY(e.queue().copy(sum_of(s).data, &out.grad_norm_sq, sizeof(double)));
  NEUROSHARD_CO_TRY(e.ops().clip_factor(e.q(), clip));
  NEUROSHARD_CO_TRY(e.queue().copy(&factor, clip.factor.data, sizeof(float)));

  // From here on a cancelled step leaves some weights new and some old: only loading them again helps.
  s.gradient_broken = true;
  s.weights_broken = true;
  s.norm_sq.reset();
  kernels::adamw_args args;
  args.clip = clip.factor;
  args.learning_rate = step.learning_rate;
  args.beta1 = step.beta1;
  args.beta2 = step.beta2;
  args.eps = step.eps;
  args.t = s.t + 1;
  std::vector<kernels::adamw_item> items;
  items.reserve(64);
  item_walker walker{s};
  for (walker.next(items); !items.empty(); walker.next(items)) {
    args.items = items;
    NEUROSHARD_CO_TRY(e.ops().adamw(e.q(), args));
    double bytes = 0;
    for (const auto& item : items)
      bytes += 8.0 * static_cast<double>(item.weight.bytes());
    if (e.spent_bytes(bytes))
      co_await end_slice{};
  }
  s.t += 1;
  NEUROSHARD_CO_TRY(co_await prepare_all(s));
  NEUROSHARD_CO_TRY(e.queue().wait());
  s.gradient_broken = false;
  s.weights_broken = false;
  s.gradient_held = false;
  out.clip_factor = static_cast<double>(factor);
  out.t = s.t;
  co_return out;
}

sliced<status> run_discard(stage_state& s) {
  if (!s.options.train)
    co_return status{};
  if (s.training_busy || s.loading)
    co_return busy_error("a step cannot be discarded");
  const busy_guard busy(s.training_busy);
  engine& e = *s.e;
  for (train_slot& slot : s.slots)
    slot.used = false;
  for (kept_gradient& kept : s.kept)
    kept.used = false;
  s.norm_sq.reset();
  if (s.gradient_held || s.gradient_broken) {
    s.gradient_broken = true;
    for (const unit_store& store : s.stores) {
      constexpr uint64_t piece = uint64_t{piece_elements} * sizeof(float);
      for (uint64_t at = 0; at < store.gradient->bytes; at += piece) {
        const uint64_t bytes = std::min(piece, store.gradient->bytes - at);
        NEUROSHARD_CO_TRY(e.queue().fill(at_offset(store.gradient, at), 0, bytes));
        if (e.spent_bytes(static_cast<double>(bytes)))
          co_await end_slice{};
      }
    }
    NEUROSHARD_CO_TRY(e.queue().wait());
  }
  s.gradient_held = false;
  s.gradient_broken = false;
  co_return status{};
}

} // namespace neuroshard::model

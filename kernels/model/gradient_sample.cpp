#include "kernels/model/stage_state.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::model {

namespace {

constexpr size_t copies_per_slice = 256;

/// Where the elements of the held units lie in device memory when they are counted through: units in order,
/// the tensors of a unit by name.
class place_map {
public:
  explicit place_map(const stage_state& s) {
    for (const unit_store& store : s.stores) {
      std::vector<const parameter*> by_name;
      for (const parameter& p : store.layout.parameters)
        by_name.push_back(&p);
      std::sort(by_name.begin(), by_name.end(),
                [](const parameter* a, const parameter* b) { return a->name < b->name; });
      for (const parameter* p : by_name) {
        tensors_.push_back({count_, static_cast<const float*>(store.gradient->address) + p->offset});
        count_ += static_cast<uint64_t>(p->count);
      }
    }
  }
  uint64_t count() const noexcept { return count_; }
  const float* address(uint64_t place) const {
    const auto after = std::upper_bound(tensors_.begin(), tensors_.end(), place,
                                        [](uint64_t at, const tensor_at& t) { return at < t.first; });
    const tensor_at& in = *std::prev(after);
    return in.memory + (place - in.first);
  }

private:
  struct tensor_at {
    uint64_t first;
    const float* memory;
  };
  std::vector<tensor_at> tensors_;
  uint64_t count_ = 0;
};

status check_sample(const stage_state& s) {
  if (!s.options.train)
    return {code::invalid_argument, "this stage does not train"};
  if (s.training_busy || s.loading)
    return busy_error("the gradient cannot be sampled");
  if (s.gradient_broken)
    return {code::invalid_argument, "a step ended half way and must be discarded first"};
  if (!s.gradient_held)
    return {code::invalid_argument, "there is no gradient to sample"};
  return {};
}

} // namespace

sliced<result<gradient_probe>> run_sample_gradient(stage_state& s, std::vector<uint64_t> draws) {
  NEUROSHARD_CO_TRY(check_sample(s));
  const busy_guard busy(s.training_busy);
  engine& e = *s.e;
  const place_map places(s);
  gradient_probe probe;
  probe.values.resize(draws.size());
  const wait_at_end drain(e); // before `probe`, which the copies write to, goes
  const tensor sum = make_tensor(at_offset(s.shared.memory, s.shared.scalars + 32), dtype::f64, {1});
  for (const unit_store& store : s.stores) {
    double norm_sq = 0;
    NEUROSHARD_CO_TRY(e.fill_zero(sum));
    NEUROSHARD_CO_TRY(co_await add_squares(e, store, sum));
    NEUROSHARD_CO_TRY(e.queue().copy(&norm_sq, sum.data, sizeof(double)));
    NEUROSHARD_CO_TRY(e.queue().wait());
    probe.unit_norms.push_back(std::sqrt(norm_sq));
  }
  for (size_t i = 0; i < draws.size(); ++i) {
    NEUROSHARD_CO_TRY(
        e.queue().copy(&probe.values[i], places.address(draws[i] % places.count()), sizeof(float)));
    if ((i + 1) % copies_per_slice == 0)
      co_await end_slice{};
  }
  NEUROSHARD_CO_TRY(e.queue().wait());
  co_return probe;
}

} // namespace neuroshard::model

#include "kernels/model/stage_state.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::model {

namespace {

/// Elements that pass through host memory at once.
constexpr int64_t chunk_elements = 1 << 18;

uint64_t f32_bytes(int64_t elements) {
  return static_cast<uint64_t>(elements) * sizeof(float);
}

/// The buffer of a part; null where the stage does not hold it.
const kernels::buffer_ptr& part_of(const unit_store& store, parameter_part part) {
  switch (part) {
  case parameter_part::gradient:
    return store.gradient;
  case parameter_part::first_moment:
    return store.first_moment;
  case parameter_part::second_moment:
    return store.second_moment;
  case parameter_part::weight:
    break;
  }
  return store.master;
}

result<float*> locate(const stage_state& s, std::string_view name, parameter_part part, int64_t first,
                      size_t count) {
  const auto at = find_parameter(s, name);
  if (!at)
    return status(code::invalid_argument,
                  "this stage holds no parameter \"" + std::string(name.substr(0, 80)) + "\"");
  const unit_store& store = s.stores[at->first];
  const parameter& p = store.layout.parameters[at->second];
  if (first < 0 || first > p.count || static_cast<int64_t>(count) > p.count - first)
    return status(code::invalid_argument, "elements " + std::to_string(first) + " ... +" +
                                              std::to_string(count) + " are outside of " + p.name + " with " +
                                              std::to_string(p.count));
  const auto& memory = part_of(store, part);
  if (!memory)
    return status(code::invalid_argument, part == parameter_part::weight
                                              ? "this stage only serves and holds no f32 weights"
                                              : "this stage does not train and has no gradients and moments");
  return static_cast<float*>(memory->address) + p.offset + first;
}

sliced<status> clear(engine& e, kernels::buffer_ptr memory) {
  constexpr uint64_t chunk = 32U << 20U;
  for (uint64_t at = 0; at < memory->bytes; at += chunk) {
    const uint64_t bytes = std::min(chunk, memory->bytes - at);
    NEUROSHARD_CO_TRY(e.queue().fill(at_offset(memory, at), 0, bytes));
    if (e.spent_bytes(static_cast<double>(bytes)))
      co_await end_slice{};
  }
  co_return status{};
}

} // namespace

tensor unit_store::view(const kernels::buffer_ptr& memory, size_t at) const {
  const parameter& p = layout.parameters[at];
  void* data = at_offset(memory, f32_bytes(p.offset));
  return p.shape.size() == 2 ? make_tensor(data, dtype::f32, {p.shape[0], p.shape[1]})
                             : make_tensor(data, dtype::f32, {p.shape[0]});
}

tensor unit_store::joined(const kernels::buffer_ptr& memory, size_t first, size_t count) const {
  tensor t = view(memory, first);
  for (size_t i = first + 1; i < first + count; ++i)
    t.shape[0] += layout.parameters[i].shape[0];
  return t;
}

tensor stage_state::final_norm_gradient() const {
  const unit_store& store = stores[*head_at];
  return store.view(store.gradient, store.layout.parameters.size() - 1);
}

tensor stage_state::head_master() const {
  const unit_store& store = stores[shape.tie_embeddings ? *embed_at : *head_at];
  return store.view(store.master, 0);
}

std::optional<std::pair<size_t, size_t>> find_parameter(const stage_state& s, std::string_view name) {
  for (size_t u = 0; u < s.stores.size(); ++u) {
    const auto& parameters = s.stores[u].layout.parameters;
    for (size_t i = 0; i < parameters.size(); ++i)
      if (parameters[i].name == name)
        return std::pair{u, i};
  }
  return std::nullopt;
}

status build_weights(stage_state& s) {
  const bool train = s.options.train;
  for (const unit& u : s.units) {
    unit_store store;
    store.layout = u;
    const auto take = [&](kernels::buffer_ptr& into, uint64_t& category) -> status {
      auto memory = allocate(*s.e->device(), f32_bytes(u.count));
      if (!memory.ok())
        return memory.status();
      into = *memory;
      category += into->bytes;
      return {};
    };
    NEUROSHARD_TRY(take(store.master, s.fixed.master));
    if (train) {
      NEUROSHARD_TRY(take(store.gradient, s.fixed.gradients));
      NEUROSHARD_TRY(take(store.first_moment, s.fixed.moments));
      NEUROSHARD_TRY(take(store.second_moment, s.fixed.moments));
    }
    s.stores.push_back(std::move(store));
  }
  return {};
}

bool masters_held(const stage_state& s) {
  return std::all_of(s.stores.begin(), s.stores.end(),
                     [](const unit_store& store) { return store.master != nullptr; });
}

namespace {

status take_masters(stage_state& s) {
  for (unit_store& store : s.stores) {
    if (store.master)
      continue;
    auto memory = allocate(*s.e->device(), f32_bytes(store.layout.count));
    if (!memory.ok())
      return memory.status();
    store.master = *memory;
    s.fixed.master += store.master->bytes;
  }
  return {};
}

} // namespace

status release_masters(stage_state& s) {
  if (s.options.train || !s.newest)
    return {code::invalid_argument,
            s.options.train ? "a stage that trains needs its f32 weights" : "there is no serving copy yet"};
  if (s.loading || s.copying || s.scoring_inner)
    return busy_error("the f32 weights cannot be freed");
  NEUROSHARD_TRY(s.e->queue().wait());
  for (unit_store& store : s.stores) {
    if (store.master)
      s.fixed.master -= store.master->bytes;
    store.master.reset();
  }
  return {};
}

sliced<status> prepare_all(stage_state& s) {
  if (!s.options.train)
    co_return status{};
  engine& e = *s.e;
  const auto cost = [](const tensor& t) { return 2.5 * static_cast<double>(t.bytes()); };
  for (size_t l = 0; l < s.blocks.size(); ++l) {
    const unit_store& store = s.stores[s.first_block + l];
    const block_weights& w = s.blocks[l];
    const std::pair<tensor, tensor> all[] = {
        {store.joined(store.master, at_q, 3), w.qkv.prepared},
        {store.view(store.master, at_o), w.o.prepared},
        {store.joined(store.master, at_gate, 2), w.gate_up.prepared},
        {store.view(store.master, at_down), w.down.prepared},
    };
    for (const auto& [master, prepared] : all) {
      NEUROSHARD_CO_TRY(e.prepare(master, weight_use::train, prepared));
      if (e.spent_bytes(cost(master)))
        co_await end_slice{};
    }
  }
  if (s.head.prepared) {
    NEUROSHARD_CO_TRY(e.prepare(s.head_master(), weight_use::train, s.head.prepared));
    if (e.spent_bytes(cost(s.head_master())))
      co_await end_slice{};
  }
  co_return status{};
}

sliced<status> run_refresh_weights(stage_state& s) {
  if (s.training_busy || s.loading || s.copying || s.scoring_inner)
    co_return busy_error("weights cannot be set");
  const busy_guard guard(s.loading);
  NEUROSHARD_CO_TRY(co_await prepare_all(s));
  s.weights_broken = false;
  co_return status{};
}

sliced<status> run_initialize(stage_state& s, uint64_t seed) {
  if (s.training_busy || s.loading || s.copying || s.scoring_inner)
    co_return busy_error("weights cannot be set");
  const busy_guard guard(s.loading);
  NEUROSHARD_CO_TRY(take_masters(s));
  engine& e = *s.e;
  std::vector<float> chunk(static_cast<size_t>(chunk_elements));
  const wait_at_end drain(e);
  for (const unit_store& store : s.stores) {
    for (const parameter& p : store.layout.parameters) {
      for (int64_t first = 0; first < p.count; first += chunk_elements) {
        const auto count = static_cast<size_t>(std::min(chunk_elements, p.count - first));
        initial_values(p, seed, first, std::span(chunk).first(count));
        NEUROSHARD_CO_TRY(e.queue().copy(at_offset(store.master, f32_bytes(p.offset + first)), chunk.data(),
                                         count * sizeof(float)));
        NEUROSHARD_CO_TRY(e.queue().wait());
        co_await end_slice{};
      }
    }
    if (s.options.train) {
      NEUROSHARD_CO_TRY(co_await clear(e, store.gradient));
      NEUROSHARD_CO_TRY(co_await clear(e, store.first_moment));
      NEUROSHARD_CO_TRY(co_await clear(e, store.second_moment));
    }
  }
  s.t = 0;
  s.gradient_held = false;
  s.gradient_broken = false;
  s.norm_sq.reset();
  NEUROSHARD_CO_TRY(co_await prepare_all(s));
  s.weights_broken = false;
  co_return status{};
}

status read_parameter(stage_state& s, std::string_view name, parameter_part part, int64_t first,
                      std::span<float> out) {
  auto from = locate(s, name, part, first, out.size());
  if (!from.ok())
    return from.status();
  NEUROSHARD_TRY(s.e->queue().copy(out.data(), *from, out.size_bytes()));
  return s.e->queue().wait();
}

status write_parameter(stage_state& s, std::string_view name, parameter_part part, int64_t first,
                       std::span<const float> in) {
  if (s.training_busy || s.loading || s.copying || s.scoring_inner)
    return busy_error("weights cannot be set");
  NEUROSHARD_TRY(take_masters(s));
  auto to = locate(s, name, part, first, in.size());
  if (!to.ok())
    return to.status();
  NEUROSHARD_TRY(s.e->queue().copy(*to, in.data(), in.size_bytes()));
  return s.e->queue().wait();
}

sliced<result<std::vector<kernels::digest>>> run_unit_hashes(stage_state& s) {
  if (!masters_held(s))
    co_return status(code::invalid_argument, "this stage only serves and holds no f32 weights");
  engine& e = *s.e;
  std::vector<float> chunk(static_cast<size_t>(chunk_elements));
  const wait_at_end drain(e);
  std::vector<kernels::digest> hashes;
  for (const unit_store& store : s.stores) {
    std::vector<tensor_digest> tensors;
    for (const parameter& p : store.layout.parameters) {
      kernels::sha256 hash;
      for (int64_t first = 0; first < p.count; first += chunk_elements) {
        const auto count = static_cast<uint64_t>(std::min(chunk_elements, p.count - first));
        const auto bytes = count * sizeof(float);
        NEUROSHARD_CO_TRY(
            e.queue().copy(chunk.data(), at_offset(store.master, f32_bytes(p.offset + first)), bytes));
        NEUROSHARD_CO_TRY(e.queue().wait());
        hash.update(chunk.data(), bytes);
        co_await end_slice{};
      }
      tensors.push_back({p.name, dtype::f32, p.shape, hash.finish()});
    }
    hashes.push_back(unit_hash(std::move(tensors)));
  }
  co_return hashes;
}

} // namespace neuroshard::model

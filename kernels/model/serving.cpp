#include "kernels/model/stage_state.hpp"

#include <algorithm>

namespace neuroshard::model {

// ------------------------------------------------------------------------------------------------- hashes

std::vector<kernels::digest> canonical_weights::unit_hashes() const {
  std::vector<kernels::digest> hashes;
  for (const canonical_unit& u : units) {
    std::vector<tensor_digest> tensors;
    for (const canonical_tensor& t : u.tensors) {
      kernels::sha256 hash;
      hash.update(t.bytes.data(), t.bytes.size());
      tensors.push_back({t.name, t.type, t.shape, hash.finish()});
    }
    hashes.push_back(unit_hash(std::move(tensors)));
  }
  return hashes;
}

kernels::digest canonical_weights::hash() const {
  return model_hash(unit_hashes());
}

std::shared_ptr<const canonical_weights> serving_copy::canonical() const {
  const std::lock_guard lock(guard_);
  return canonical_;
}

void serving_copy::drop_canonical() const {
  const std::lock_guard lock(guard_);
  canonical_.reset();
}

// ------------------------------------------------------------------------------------------------- access

block_weights weights_access::block(const serving_copy& copy, const architecture& a, size_t layer) {
  const auto& l = copy.layers_[layer];
  block_weights w;
  w.qkv = {l.qkv, weight_use::serve, a.q_width() + 2 * a.kv_width(), a.hidden_dim};
  w.o = {l.o, weight_use::serve, a.hidden_dim, a.q_width()};
  w.gate_up = {l.gate_up, weight_use::serve, 2 * a.ffn_dim, a.hidden_dim};
  w.down = {l.down, weight_use::serve, a.hidden_dim, a.ffn_dim};
  w.attn_norm = l.attn_norm;
  w.ffn_norm = l.ffn_norm;
  return w;
}

product_weight weights_access::head(const serving_copy& copy, const architecture& a) {
  return {copy.head_, weight_use::serve, a.vocab_capacity, a.hidden_dim};
}

// ------------------------------------------------------------------------------------------------- making

/// Lays a copy out in one allocation and fills it slice by slice.
struct serving_maker {
  stage_state& s;
  std::shared_ptr<serving_copy> copy;
  std::shared_ptr<canonical_weights> canonical;
  kernels::buffer_ptr staging; ///< one chunk in compute dtype

  static constexpr int64_t chunk_elements = 1 << 19;

  status allocate_all() {
    engine& e = *s.e;
    const architecture& a = s.shape;
    memory_layout at;
    std::vector<std::pair<tensor*, uint64_t>> places; // with the offset of each
    const auto piece = [&](tensor& into, dtype type, std::initializer_list<int64_t> shape) {
      into = make_tensor(nullptr, type, shape);
      places.emplace_back(&into, at.add(into.bytes()));
    };
    const auto product = [&](tensor& into, int64_t n, int64_t k) {
      piece(into, dtype::i8, {static_cast<int64_t>(e.prepared_bytes(n, k, weight_use::serve))});
    };
    copy->layers_.resize(static_cast<size_t>(s.layers()));
    for (auto& l : copy->layers_) {
      product(l.qkv, a.q_width() + 2 * a.kv_width(), a.hidden_dim);
      product(l.o, a.hidden_dim, a.q_width());
      product(l.gate_up, 2 * a.ffn_dim, a.hidden_dim);
      product(l.down, a.hidden_dim, a.ffn_dim);
      piece(l.attn_norm, dtype::f32, {a.hidden_dim});
      piece(l.ffn_norm, dtype::f32, {a.hidden_dim});
    }
    if (s.options.embed)
      piece(copy->embedding_, e.act(), {a.vocab_capacity, a.hidden_dim});
    if (s.options.head) {
      piece(copy->norm_, dtype::f32, {a.hidden_dim});
      product(copy->head_, a.vocab_capacity, a.hidden_dim);
    }
    auto memory = allocate(*e.device(), at.bytes());
    if (!memory.ok())
      return memory.status();
    copy->memory_ = *memory;
    copy->bytes_ = at.bytes();
    for (const auto& [into, offset] : places)
      into->data = at_offset(copy->memory_, offset);
    auto chunk = allocate(*e.device(), static_cast<uint64_t>(chunk_elements) * e.act_size());
    if (!chunk.ok())
      return chunk.status();
    staging = *chunk;
    return {};
  }

  /// The canonical bytes of all parameters, in compute dtype.
  sliced<status> take_canonical() {
    engine& e = *s.e;
    for (const unit_store& store : s.stores) {
      canonical->units.push_back({store.layout.name, {}});
      canonical_unit& unit = canonical->units.back();
      unit.tensors.reserve(store.layout.parameters.size());
      for (const parameter& p : store.layout.parameters) {
        unit.tensors.push_back({p.name, e.act(), p.shape, {}});
        auto& bytes = unit.tensors.back().bytes;
        bytes.resize(static_cast<size_t>(p.count) * e.act_size());
        for (int64_t first = 0; first < p.count; first += chunk_elements) {
          const int64_t count = std::min(chunk_elements, p.count - first);
          const tensor from =
              make_tensor(at_offset(store.master, static_cast<uint64_t>(p.offset + first) * sizeof(float)),
                          dtype::f32, {count});
          tensor source = from;
          if (e.act() != dtype::f32) {
            source = make_tensor(staging->address, e.act(), {count});
            NEUROSHARD_CO_TRY(e.convert(from, source));
          }
          NEUROSHARD_CO_TRY(e.queue().copy(bytes.data() + static_cast<size_t>(first) * e.act_size(),
                                           source.data, source.bytes()));
          if (e.spent_bytes(2.0 * static_cast<double>(from.bytes())))
            co_await end_slice{};
        }
      }
    }
    co_return e.queue().wait();
  }

  /// A gain is used in f32 but has the precision of the copy, so that what is hashed is what is used.
  status round_gain(tensor from, tensor to) {
    engine& e = *s.e;
    if (e.act() == dtype::f32)
      return e.queue().copy(to.data, from.data, from.bytes());
    const tensor rounded = make_tensor(staging->address, e.act(), {from.shape[0]});
    NEUROSHARD_TRY(e.convert(from, rounded));
    return e.convert(rounded, to);
  }

  sliced<status> take_matrix(tensor master, tensor prepared) {
    NEUROSHARD_CO_TRY(s.e->prepare(master, weight_use::serve, prepared));
    if (s.e->spent_bytes(2.0 * static_cast<double>(master.bytes())))
      co_await end_slice{};
    co_return status{};
  }

  sliced<status> take_embedding() {
    engine& e = *s.e;
    const tensor master = s.gain(*s.embed_at, 0);
    const int64_t rows_at_once = std::max<int64_t>(1, 4 * chunk_elements / s.shape.hidden_dim);
    for (int64_t first = 0; first < master.shape[0]; first += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, master.shape[0] - first);
      const tensor from = rows_of(master, first, rows);
      const tensor to = rows_of(copy->embedding_, first, rows);
      NEUROSHARD_CO_TRY(e.act() == dtype::f32 ? e.queue().copy(to.data, from.data, from.bytes())
                                              : e.convert(from, to));
      if (e.spent_bytes(1.5 * static_cast<double>(from.bytes())))
        co_await end_slice{};
    }
    co_return status{};
  }

  sliced<status> fill() {
    for (size_t l = 0; l < copy->layers_.size(); ++l) {
      const unit_store& store = s.stores[s.first_block + l];
      auto& to = copy->layers_[l];
      NEUROSHARD_CO_TRY(co_await take_matrix(store.joined(store.master, at_q, 3), to.qkv));
      NEUROSHARD_CO_TRY(co_await take_matrix(store.view(store.master, at_o), to.o));
      NEUROSHARD_CO_TRY(co_await take_matrix(store.joined(store.master, at_gate, 2), to.gate_up));
      NEUROSHARD_CO_TRY(co_await take_matrix(store.view(store.master, at_down), to.down));
      NEUROSHARD_CO_TRY(round_gain(store.view(store.master, at_attn_norm), to.attn_norm));
      NEUROSHARD_CO_TRY(round_gain(store.view(store.master, at_ffn_norm), to.ffn_norm));
    }
    if (s.options.embed)
      NEUROSHARD_CO_TRY(co_await take_embedding());
    if (s.options.head) {
      NEUROSHARD_CO_TRY(round_gain(s.final_norm(), copy->norm_));
      NEUROSHARD_CO_TRY(co_await take_matrix(s.head_master(), copy->head_));
    }
    if (canonical)
      NEUROSHARD_CO_TRY(co_await take_canonical());
    co_return s.e->queue().wait();
  }

  static std::shared_ptr<serving_copy> blank(stage_state& s, uint64_t version) {
    auto copy = std::shared_ptr<serving_copy>(new serving_copy);
    copy->id_ = ++s.copies_made;
    copy->version_ = version;
    copy->compute_ = s.e->act();
    return copy;
  }
  void attach() { copy->canonical_ = std::move(canonical); }
};

sliced<result<serving_ptr>> run_make_serving_copy(stage_state& s, uint64_t version, bool canonical) {
  if (s.copying || s.loading || s.applying)
    co_return busy_error("a serving copy cannot be made");
  if (!masters_held(s))
    co_return status(code::invalid_argument, "this stage only serves and holds no f32 weights");
  if (s.weights_broken)
    co_return status(code::invalid_argument,
                     "an optimizer step ended half way; the weights must be loaded again");
  const busy_guard busy(s.copying);
  serving_maker maker{s, serving_maker::blank(s, version), nullptr, nullptr};
  if (canonical)
    maker.canonical = std::make_shared<canonical_weights>();
  const wait_at_end drain(*s.e);
  NEUROSHARD_CO_TRY(maker.allocate_all());
  NEUROSHARD_CO_TRY(co_await maker.fill());
  maker.attach();
  s.newest = maker.copy;
  std::erase_if(s.copies, [](const auto& held) { return held.expired(); });
  s.copies.push_back(s.newest);
  co_return s.newest;
}

} // namespace neuroshard::model

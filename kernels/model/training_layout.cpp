#include "kernels/model/stage_state.hpp"

#include <algorithm>

namespace neuroshard::model {

namespace {

/// All offsets of a slot for up to `rows` rows.
slot_layout layout_slot(const stage_state& s, int64_t rows) {
  memory_layout at;
  slot_layout slot;
  const auto integers = [&] { return at.add(static_cast<uint64_t>(rows) * sizeof(int32_t)); };
  slot.ids = integers();
  slot.positions = integers();
  slot.lengths = integers();
  slot.labels = integers();
  for (int64_t l = 0; l <= s.layers(); ++l)
    slot.inputs.push_back(at.add(static_cast<uint64_t>(rows * s.shape.hidden_dim) * s.e->act_size()));
  if (!s.recompute)
    for (int64_t l = 0; l < s.layers(); ++l)
      slot.blocks.emplace_back(*s.e, rows, true, at);
  slot.bytes = at.bytes();
  return slot;
}

status build_products(stage_state& s) {
  engine& e = *s.e;
  const architecture& a = s.shape;
  memory_layout at;
  const auto plan = [&](int64_t n, int64_t k) {
    const uint64_t bytes = e.prepared_bytes(n, k, weight_use::train);
    return std::pair{at.add(bytes), bytes};
  };
  struct planned {
    std::pair<uint64_t, uint64_t> qkv, o, gate_up, down;
  };
  std::vector<planned> blocks;
  for (int64_t l = 0; l < s.layers(); ++l)
    blocks.push_back({plan(a.q_width() + 2 * a.kv_width(), a.hidden_dim), plan(a.hidden_dim, a.q_width()),
                      plan(2 * a.ffn_dim, a.hidden_dim), plan(a.hidden_dim, a.ffn_dim)});
  const auto head = s.options.head ? plan(a.vocab_capacity, a.hidden_dim) : std::pair<uint64_t, uint64_t>{};
  auto memory = allocate(*e.device(), at.bytes());
  if (!memory.ok())
    return memory.status();
  s.prepared = *memory;
  s.fixed.weights += s.prepared->bytes;

  const auto product = [&](std::pair<uint64_t, uint64_t> place, int64_t n, int64_t k) {
    product_weight w;
    w.prepared =
        make_tensor(at_offset(s.prepared, place.first), dtype::i8, {static_cast<int64_t>(place.second)});
    w.use = weight_use::train;
    w.out_features = n;
    w.in_features = k;
    return w;
  };
  for (size_t l = 0; l < blocks.size(); ++l) {
    const unit_store& store = s.stores[s.first_block + l];
    block_weights w;
    w.qkv = product(blocks[l].qkv, a.q_width() + 2 * a.kv_width(), a.hidden_dim);
    w.o = product(blocks[l].o, a.hidden_dim, a.q_width());
    w.gate_up = product(blocks[l].gate_up, 2 * a.ffn_dim, a.hidden_dim);
    w.down = product(blocks[l].down, a.hidden_dim, a.ffn_dim);
    w.attn_norm = store.view(store.master, at_attn_norm);
    w.ffn_norm = store.view(store.master, at_ffn_norm);
    s.blocks.push_back(w);
    block_gradients g;
    g.qkv = store.joined(store.gradient, at_q, 3);
    g.o = store.view(store.gradient, at_o);
    g.gate_up = store.joined(store.gradient, at_gate, 2);
    g.down = store.view(store.gradient, at_down);
    g.attn_norm = store.view(store.gradient, at_attn_norm);
    g.ffn_norm = store.view(store.gradient, at_ffn_norm);
    s.block_grads.push_back(g);
  }
  if (s.options.head) {
    s.head = product(head, a.vocab_capacity, a.hidden_dim);
    const unit_store& store = s.stores[a.tie_embeddings ? *s.embed_at : *s.head_at];
    s.head_gradient = store.view(store.gradient, 0);
  }
  return {};
}

} // namespace

status build_training(stage_state& s) {
  if (!s.options.train)
    return {};
  engine& e = *s.e;
  const architecture& a = s.shape;
  const int64_t rows = s.options.train_tokens_max;
  s.recompute = s.options.recompute.value_or(s.layers() > 16);
  NEUROSHARD_TRY(build_products(s));

  s.slot_at = layout_slot(s, rows);
  s.slots.resize(static_cast<size_t>(s.options.head ? 1 : s.options.train_slots));
  for (train_slot& slot : s.slots) {
    auto memory = allocate(*e.device(), s.slot_at.bytes);
    if (!memory.ok())
      return memory.status();
    slot.memory = *memory;
    s.fixed.activations += s.slot_at.bytes;
  }
  if (s.options.head && !s.options.embed)
    s.kept.resize(static_cast<size_t>(s.options.train_slots));
  for (kept_gradient& kept : s.kept) {
    auto memory = allocate(*e.device(), static_cast<uint64_t>(rows * a.hidden_dim) * e.act_size());
    if (!memory.ok())
      return memory.status();
    kept.memory = *memory;
    s.fixed.activations += kept.memory->bytes;
  }

  memory_layout at;
  const auto act = [&](int64_t columns) {
    return at.add(static_cast<uint64_t>(rows * columns) * e.act_size());
  };
  if (s.layers() > 0) {
    s.shared.wide = act(a.ffn_dim);
    s.shared.dqkv = act(a.q_width() + 2 * a.kv_width());
    s.shared.dattended = act(a.q_width());
    if (s.recompute)
      s.shared.recomputed = block_layout(e, rows, true, at);
  }
  s.shared.narrow = act(a.hidden_dim);
  s.shared.gradient = act(a.hidden_dim);
  s.shared.normed = act(a.hidden_dim);
  s.shared.rstd = at.add(static_cast<uint64_t>(rows) * sizeof(float));
  s.shared.wire = s.whole() ? 0 : at.add(static_cast<uint64_t>(rows * a.hidden_dim) * sizeof(float));
  s.shared.scalars = at.add(64);
  auto memory = allocate(*e.device(), at.bytes());
  if (!memory.ok())
    return memory.status();
  s.shared.memory = *memory;
  s.fixed.activations += at.bytes();

  if (s.options.head) {
    const int64_t tile_rows = std::min(rows, s.options.head_tile_rows);
    memory_layout tile;
    (void)place_head_tile(e, tile_rows, tile, nullptr);
    auto tile_memory = allocate(*e.device(), tile.bytes());
    if (!tile_memory.ok())
      return tile_memory.status();
    s.shared.tile_memory = *tile_memory;
    s.fixed.workspace += tile.bytes();
    memory_layout again;
    s.shared.tile = place_head_tile(e, tile_rows, again, &s.shared.tile_memory);
  }
  return {};
}

} // namespace neuroshard::model

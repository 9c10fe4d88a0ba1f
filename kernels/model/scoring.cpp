#include "kernels/model/stage_state.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::model {

namespace {

/// Memory of one SCORE call. It comes every few hundred steps, so it takes what it needs and gives it back.
struct score_memory {
  kernels::buffer_ptr memory;
  block_layout block;
  uint64_t out = 0, ids = 0, positions = 0, lengths = 0, labels = 0, last_rows = 0, wire = 0;
  head_tile tile;

  status allocate_for(const stage_state& s, int64_t rows, int64_t sequences) {
    const engine& e = *s.e;
    memory_layout at;
    block = block_layout(e, rows, false, at);
    const auto act = [&](int64_t count) {
      return at.add(static_cast<uint64_t>(count * s.shape.hidden_dim) * e.act_size());
    };
    const auto integers = [&](int64_t count) {
      return at.add(static_cast<uint64_t>(count) * sizeof(int32_t));
    };
    out = act(rows);
    ids = integers(rows);
    positions = integers(rows);
    labels = integers(rows);
    lengths = integers(sequences);
    last_rows = act(sequences);
    wire = at.add(static_cast<uint64_t>(rows * s.shape.hidden_dim) * sizeof(float));
    const int64_t tile_rows = std::min(std::max(rows, sequences), s.options.head_tile_rows);
    memory_layout tile_at = at;
    if (s.options.head)
      (void)place_head_tile(e, tile_rows, at, nullptr);
    auto taken = allocate(*e.device(), at.bytes());
    if (!taken.ok())
      return taken.status();
    memory = *taken;
    if (s.options.head)
      tile = place_head_tile(e, tile_rows, tile_at, &memory);
    return {};
  }
};

/// Weights to score with: a serving copy or the inner ones.
block_weights block_weights_of(const stage_state& s, const serving_copy* copy, size_t layer) {
  return copy != nullptr ? weights_access::block(*copy, s.shape, layer) : s.blocks[layer];
}

/// Sequences [first, first + count) of the input through the layers.
struct score_part {
  int64_t first = 0;
  int64_t count = 0;
};

template <class T>
const T* part_data(const std::vector<T>& all, int64_t first) {
  return all.data() + first;
}

sliced<status> score_layers(stage_state& s, const score_input& in, score_part part, const score_memory& m,
                            tensor& final_rows) {
  engine& e = *s.e;
  const int64_t seq = in.positions_per_sequence;
  const int64_t rows = part.count * seq;
  const int64_t first_row = part.first * seq;
  const serving_copy* copy = in.weights.get();
  const auto integers = [&](uint64_t at, int64_t count) {
    return make_tensor(at_offset(m.memory, at), dtype::i32, {count});
  };
  whole_sequences whole{part.count, integers(m.positions, rows), {}};
  NEUROSHARD_CO_TRY(e.upload(whole.positions, part_data(in.positions, first_row)));
  if (!in.lengths.empty()) {
    whole.lengths = integers(m.lengths, part.count);
    NEUROSHARD_CO_TRY(e.upload(whole.lengths, part_data(in.lengths, part.first)));
  }
  const block_activations a = m.block.place(e, m.memory, rows, part.count);
  const tensor out = make_tensor(at_offset(m.memory, m.out), e.act(), {rows, s.shape.hidden_dim});
  const tensor none;
  if (s.options.embed) {
    kernels::embedding_args args;
    args.ids = integers(m.ids, rows);
    args.table = copy != nullptr ? weights_access::embedding(*copy) : s.gain(*s.embed_at, 0);
    args.out = a.input;
    NEUROSHARD_CO_TRY(e.upload(args.ids, part_data(in.token_ids, first_row)));
    NEUROSHARD_CO_TRY(e.ops().embedding(e.q(), args));
  } else {
    activations hidden = in.hidden;
    hidden.view =
        make_tensor(hidden.view.data, hidden.view.type, {part.count * seq + first_row, s.shape.hidden_dim});
    hidden.view = rows_of(hidden.view, first_row, rows);
    const tensor wire = make_tensor(at_offset(m.memory, m.wire), dtype::f32, {rows, s.shape.hidden_dim});
    NEUROSHARD_CO_TRY(import_rows(e, hidden, a.input, wire));
  }

  const auto layers = static_cast<size_t>(s.layers());
  const auto gain = [&](size_t layer) {
    if (layer < layers)
      return block_weights_of(s, copy, layer).attn_norm;
    return copy != nullptr ? weights_access::norm(*copy) : s.final_norm();
  };
  if (layers > 0 || s.options.head)
    NEUROSHARD_CO_TRY(e.rms_norm(a.input, none, none, gain(0), a.normed, none));
  for (size_t l = 0; l < layers; ++l) {
    const block_weights w = block_weights_of(s, copy, l);
    NEUROSHARD_CO_TRY(co_await block_forward(e, w, a, &whole, nullptr, out));
    if (l + 1 < layers || s.options.head) {
      NEUROSHARD_CO_TRY(e.rms_norm(out, a.hidden, a.hidden, gain(l + 1), a.normed, none));
    } else {
      kernels::add_args sum;
      sum.a = a.hidden;
      sum.b = out;
      sum.out = a.hidden;
      NEUROSHARD_CO_TRY(e.ops().add(e.q(), sum));
    }
  }
  final_rows = s.options.head ? a.normed : a.hidden;
  co_return status{};
}

/// Logits of the last valid position of each sequence of the part, into host memory at `to`.
sliced<status> score_logits(stage_state& s, const score_input& in, score_part part, const score_memory& m,
                            tensor normed, product_weight head, float* to) {
  engine& e = *s.e;
  const int64_t seq = in.positions_per_sequence;
  const tensor last =
      make_tensor(at_offset(m.memory, m.last_rows), e.act(), {part.count, s.shape.hidden_dim});
  for (int64_t b = 0; b < part.count; ++b) {
    const int64_t length = in.lengths.empty() ? seq : in.lengths[static_cast<size_t>(part.first + b)];
    const tensor from = rows_of(normed, b * seq + length - 1, 1);
    NEUROSHARD_CO_TRY(e.queue().copy(rows_of(last, b, 1).data, from.data, from.bytes()));
  }
  const int64_t tile_rows = m.tile.logits.shape[0];
  for (int64_t first = 0; first < part.count; first += tile_rows) {
    const int64_t count = std::min(tile_rows, part.count - first);
    const tensor logits = rows_of(m.tile.logits, 0, count);
    NEUROSHARD_CO_TRY(co_await e.linear(rows_of(last, first, count), head, logits));
    NEUROSHARD_CO_TRY(
        e.queue().copy(to + (part.first + first) * s.shape.vocab_capacity, logits.data, logits.bytes()));
    NEUROSHARD_CO_TRY(e.queue().wait());
  }
  co_return status{};
}

} // namespace

sliced<result<score_output>> run_score(stage_state& s, score_input in) {
  if (s.scoring)
    co_return busy_error("a score cannot be started");
  if (!in.weights && (!s.options.train || s.loading || s.weights_broken))
    co_return status(code::invalid_argument, "there are no inner weights to score with now");
  const batch_shape shape{in.sequences, in.positions_per_sequence};
  auto counted = check_batch(s, shape, {in.token_ids, in.hidden, in.positions, in.lengths, in.labels}, false);
  if (!counted.ok())
    co_return counted.status();
  if (in.hidden && !in.hidden.view.contiguous())
    co_return status(code::invalid_argument, "activations must be contiguous");
  const busy_guard busy(s.scoring);
  bool with_copy = false;
  const busy_guard inner(in.weights ? with_copy : s.scoring_inner);
  engine& e = *s.e;
  if (in.positions.empty())
    in.positions = default_positions(shape);
  const int64_t seq = in.positions_per_sequence;
  const int64_t at_once = std::clamp<int64_t>(s.options.prefill_rows_max / seq, 1, in.sequences);
  score_memory m;
  NEUROSHARD_CO_TRY(m.allocate_for(s, at_once * seq, at_once));
  const wait_at_end drain(e);
  const bool with_loss = s.options.head && !in.labels.empty();
  const product_weight head = !s.options.head ? product_weight{}
                              : in.weights    ? weights_access::head(*in.weights, s.shape)
                                              : s.head;
  score_output out;
  double loss_sum = 0;
  const bool logits_wanted = s.options.head && !with_loss;
  const tensor none;
  std::shared_ptr<std::byte[]> host;
  const dtype reply = in.reply == dtype::unspecified ? e.act() : in.reply;
  if (logits_wanted)
    host = host_memory(static_cast<uint64_t>(in.sequences * s.shape.vocab_capacity) * sizeof(float));
  else if (!s.options.head)
    host = host_memory(static_cast<uint64_t>(shape.rows() * s.shape.hidden_dim) * kernels::size_of(reply));
  if (with_loss)
    NEUROSHARD_CO_TRY(e.fill_zero(m.tile.loss_sum));

  for (int64_t first = 0; first < in.sequences; first += at_once) {
    const score_part part{first, std::min(at_once, in.sequences - first)};
    tensor rows;
    NEUROSHARD_CO_TRY(co_await score_layers(s, in, part, m, rows));
    if (with_loss) {
      const tensor labels = make_tensor(at_offset(m.memory, m.labels), dtype::i32, {part.count * seq});
      NEUROSHARD_CO_TRY(e.upload(labels, part_data(in.labels, first * seq)));
      NEUROSHARD_CO_TRY(
          co_await head_loss(e, rows, head, labels, s.valid_vocab, 1, m.tile, true, none, none));
    } else if (logits_wanted) {
      NEUROSHARD_CO_TRY(
          co_await score_logits(s, in, part, m, rows, head, reinterpret_cast<float*>(host.get())));
    } else {
      const tensor wire =
          make_tensor(at_offset(m.memory, m.wire), dtype::f32, {rows.shape[0], s.shape.hidden_dim});
      auto exported = export_rows(e, rows, reply, wire);
      if (!exported.ok())
        co_return exported.status();
      const uint64_t row_bytes = static_cast<uint64_t>(s.shape.hidden_dim) * kernels::size_of(reply);
      std::copy_n(exported->view.as<std::byte>(), exported->view.bytes(),
                  host.get() + static_cast<uint64_t>(first * seq) * row_bytes);
    }
  }
  if (with_loss) {
    NEUROSHARD_CO_TRY(e.queue().copy(&loss_sum, m.tile.loss_sum.data, sizeof(double)));
    NEUROSHARD_CO_TRY(e.queue().wait());
    if (!std::isfinite(loss_sum))
      co_return status(code::not_finite, "the loss is not finite");
    out.label_count = *counted;
    out.loss = *counted == 0 ? 0 : loss_sum / *counted;
  } else if (logits_wanted) {
    out.logits.view = make_tensor(host.get(), dtype::f32, {in.sequences, s.shape.vocab_capacity});
    out.logits.owner = std::move(host);
  } else {
    out.hidden.view = make_tensor(host.get(), reply, {shape.rows(), s.shape.hidden_dim});
    out.hidden.owner = std::move(host);
  }
  co_return out;
}

} // namespace neuroshard::model

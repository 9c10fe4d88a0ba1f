#include "kernels/model/stage_state.hpp"

#include <algorithm>
#include <set>

namespace neuroshard::model {

namespace {

status refuse(std::string what) {
  return {code::invalid_argument, std::move(what)};
}

/// A row of the call that runs: which session it continues and where its positions lie among all.
struct running_row {
  size_t index = 0; ///< in the input
  session* cache = nullptr;
  int64_t first_input = 0; ///< its first position among all of the input
  int64_t count = 0;
};

/// Ends the sessions' part in a call, however it ends.
class session_guard {
public:
  explicit session_guard(session_table& table) : table_(&table) {}
  ~session_guard() {
    for (session* s : held_)
      table_->settle(*s);
  }
  session_guard(const session_guard&) = delete;
  session_guard& operator=(const session_guard&) = delete;
  void hold(session& s) {
    s.busy = true;
    held_.push_back(&s);
  }

private:
  session_table* table_;
  std::vector<session*> held_;
};

status check_infer(const stage_state& s, const infer_input& in, const infer_lane& lane, bool prefill) {
  if (!s.sessions)
    return refuse("this stage was laid out without a KV pool and serves no inference");
  if (lane.busy)
    return busy_error(prefill ? "a prefill cannot be started" : "a decode cannot be started");
  if (in.rows.empty() || static_cast<int64_t>(in.rows.size()) > s.options.decode_rows_max)
    return refuse("a call has 1 ... " + std::to_string(s.options.decode_rows_max) + " rows of sessions");
  int64_t positions = 0;
  std::set<std::string_view> names;
  for (const infer_row& row : in.rows) {
    if (!names.insert(row.session).second)
      return refuse("a session occurs twice in one call");
    if (row.session.empty() || row.session.size() > 128)
      return refuse("a session id has 1 ... 128 characters");
    if (row.count < 0 || (row.count == 0 && !row.close))
      return refuse("a row has at least one position, unless it only closes");
    if (row.count > lane.rows_max || row.cache_position > static_cast<uint64_t>(s.shape.max_seq_len) ||
        static_cast<int64_t>(row.cache_position) + row.count > s.shape.max_seq_len)
      return refuse("positions " + std::to_string(row.cache_position) + " +" + std::to_string(row.count) +
                    " pass the context of " + std::to_string(s.shape.max_seq_len) +
                    " or the limit of a call");
    positions += row.count;
    if (in.want == infer_result::token && row.count > 0 && !row.sample)
      return refuse("every row needs sampling parameters when tokens are wanted");
  }
  if (positions > lane.rows_max)
    return refuse(std::to_string(positions) + " positions are above the limit of " +
                  std::to_string(lane.rows_max) + " a call");
  if ((in.want == infer_result::token || in.want == infer_result::logits) && !s.options.head)
    return refuse("a stage without the head gives no logits and no tokens");
  if (in.want == infer_result::hidden && s.options.head)
    return refuse("a stage with the head gives logits or tokens");
  if (in.reply != dtype::unspecified && in.reply != dtype::f32 && in.reply != dtype::bf16)
    return refuse("activations are sent as f32 or bf16");
  if (s.options.embed) {
    if (static_cast<int64_t>(in.token_ids.size()) != positions || in.hidden)
      return refuse("a stage with the embedding takes one token id for each position and no activations");
    for (int32_t id : in.token_ids)
      if (id < 0 || id >= s.shape.vocab_capacity)
        return refuse("token id " + std::to_string(id) + " is outside of 0 ... " +
                      std::to_string(s.shape.vocab_capacity - 1));
  } else {
    if (!in.token_ids.empty())
      return refuse("a stage without the embedding takes no token ids");
    const tensor& h = in.hidden.view;
    if (positions > 0 && (!in.hidden || !h.contiguous() || h.elements() != positions * s.shape.hidden_dim ||
                          (h.type != dtype::f32 && h.type != dtype::bf16)))
      return refuse("a stage without the embedding takes f32 or bf16 activations of " +
                    std::to_string(positions) + " x " + std::to_string(s.shape.hidden_dim));
  }
  for (const infer_row& row : in.rows)
    if (row.sample && (!(row.sample->temperature >= 0) || !(row.sample->top_p > 0) || row.sample->top_p > 1))
      return refuse("temperature must be at least 0 and top_p above 0 and at most 1");
  return {};
}

/// Finds or makes the session of a row and brings its cache to the row's position; `ok` when the row can run.
infer_status admit(stage_state& s, const infer_input& in, const infer_row& row, bool prefill,
                   session*& cache) {
  session_table& table = *s.sessions;
  cache = table.find(row.session);
  const serving_ptr wanted = in.weights ? in.weights : s.newest;
  if (cache == nullptr) {
    if (table.was_evicted(row.session) && (row.cache_position > 0 || !prefill))
      return infer_status::evicted;
    if (row.cache_position > 0 || !prefill || !wanted)
      return infer_status::unknown_session;
    cache = table.create(row.session, wanted, in.now);
    if (cache == nullptr)
      return infer_status::no_memory;
  } else if (cache->busy || cache->length < static_cast<int64_t>(row.cache_position)) {
    return infer_status::cache_mismatch;
  } else if (row.cache_position == 0 && in.weights) {
    cache->weights = in.weights;
  }
  table.truncate(*cache, row.cache_position);
  const int64_t blocks_before = cache->blocks;
  cache->busy = true; // not to be evicted by its own call
  if (!table.reserve(*cache, static_cast<int64_t>(row.cache_position) + row.count, in.now)) {
    cache->busy = false;
    if (cache->length == 0) {
      table.release(row.session);
      cache = nullptr;
    }
    return infer_status::no_memory;
  }
  cache->last_use = in.now;
  if (cache->blocks > blocks_before) {
    const tensor device = s.device_table();
    auto* to = device.as<int32_t>() + cache->slot * table.blocks_per_session() + blocks_before;
    const auto bytes = static_cast<uint64_t>(cache->blocks - blocks_before) * sizeof(int32_t);
    if (!s.e->queue().copy(to, table.row(*cache) + blocks_before, bytes).ok()) {
      cache->busy = false;
      return infer_status::no_memory;
    }
  }
  return infer_status::ok;
}

/// The rows of one serving copy, and the operands made of them. Host vectors are read by the queue until the
/// call ends.
struct row_group {
  serving_ptr weights;
  std::vector<running_row> rows;
  std::vector<int32_t> ids, positions, row_cache;
  std::vector<kernels::sample_params> samples;
  std::vector<int32_t> sampled;
  std::vector<float> logprobs; ///< zero when no row wants them
  bool logprobs_wanted = false;
};

struct lane_views {
  int64_t rows = 0;
  block_activations block;
  tensor out, ids, wire;
  cached_rows cached;
};

lane_views views_of(const stage_state& s, const infer_lane& lane, int64_t rows) {
  const engine& e = *s.e;
  const auto integers = [&](uint64_t at) {
    return make_tensor(at_offset(lane.memory, at), dtype::i32, {rows});
  };
  lane_views v;
  v.rows = rows;
  v.block = lane.block.place(e, lane.memory, rows, 1);
  v.out = make_tensor(at_offset(lane.memory, lane.out), e.act(), {rows, s.shape.hidden_dim});
  v.wire = make_tensor(at_offset(lane.memory, lane.wire), dtype::f32, {rows, s.shape.hidden_dim});
  v.ids = integers(lane.ids);
  v.cached.positions = integers(lane.positions);
  v.cached.row_cache = integers(lane.row_cache);
  v.cached.tables = s.device_table();
  return v;
}

void fill_operands(const infer_input& in, row_group& group) {
  for (const running_row& row : group.rows) {
    for (int64_t i = 0; i < row.count; ++i) {
      if (!in.token_ids.empty())
        group.ids.push_back(in.token_ids[static_cast<size_t>(row.first_input + i)]);
      group.positions.push_back(static_cast<int32_t>(in.rows[row.index].cache_position + i));
      group.row_cache.push_back(row.cache->slot);
    }
    if (in.rows[row.index].sample)
      group.samples.push_back(*in.rows[row.index].sample);
    group.logprobs_wanted |= in.rows[row.index].want_logprob;
  }
}

status bring_input(stage_state& s, const infer_input& in, const row_group& group, const lane_views& v) {
  engine& e = *s.e;
  NEUROSHARD_TRY(e.upload(v.cached.positions, group.positions.data()));
  NEUROSHARD_TRY(e.upload(v.cached.row_cache, group.row_cache.data()));
  if (s.options.embed) {
    NEUROSHARD_TRY(e.upload(v.ids, group.ids.data()));
    kernels::embedding_args args;
    args.ids = v.ids;
    args.table = weights_access::embedding(*group.weights);
    args.out = v.block.input;
    return e.ops().embedding(e.q(), args);
  }
  const tensor all = make_tensor(in.hidden.view.data, in.hidden.view.type,
                                 {in.hidden.view.elements() / s.shape.hidden_dim, s.shape.hidden_dim});
  int64_t at = 0;
  for (const running_row& row : group.rows) {
    activations part;
    part.view = rows_of(all, row.first_input, row.count);
    NEUROSHARD_TRY(
        import_rows(e, part, rows_of(v.block.input, at, row.count), rows_of(v.wire, at, row.count)));
    at += row.count;
  }
  return {};
}

/// All layers; leaves what comes next in `normed` (with the head) or `hidden`.
sliced<status> infer_layers(stage_state& s, const row_group& group, lane_views& v, bool result_wanted) {
  engine& e = *s.e;
  const tensor none;
  const auto layers = static_cast<size_t>(s.layers());
  const auto gain = [&](size_t layer) {
    return layer < layers ? weights_access::block(*group.weights, s.shape, layer).attn_norm
                          : weights_access::norm(*group.weights);
  };
  if (layers > 0 || s.options.head)
    NEUROSHARD_CO_TRY(e.rms_norm(v.block.input, none, none, gain(0), v.block.normed, none));
  for (size_t l = 0; l < layers; ++l) {
    const block_weights w = weights_access::block(*group.weights, s.shape, l);
    v.cached.key_cache = s.kv_cache(static_cast<int64_t>(l), false);
    v.cached.value_cache = s.kv_cache(static_cast<int64_t>(l), true);
    NEUROSHARD_CO_TRY(co_await block_forward(e, w, v.block, nullptr, &v.cached, v.out));
    if (l + 1 < layers || s.options.head) {
      NEUROSHARD_CO_TRY(e.rms_norm(v.out, v.block.hidden, v.block.hidden, gain(l + 1), v.block.normed, none));
    } else if (result_wanted) {
      kernels::add_args sum;
      sum.a = v.block.hidden;
      sum.b = v.out;
      sum.out = v.block.hidden;
      NEUROSHARD_CO_TRY(e.ops().add(e.q(), sum));
    }
  }
  co_return status{};
}

/// Logits of each row's last position.
sliced<status> infer_logits(stage_state& s, const infer_lane& lane, const row_group& group,
                            const lane_views& v, tensor& logits) {
  engine& e = *s.e;
  const auto rows = static_cast<int64_t>(group.rows.size());
  tensor last = v.block.normed;
  if (rows != v.rows) {
    last = make_tensor(at_offset(lane.memory, lane.last_rows), e.act(), {rows, s.shape.hidden_dim});
    int64_t end = 0;
    for (int64_t i = 0; i < rows; ++i) {
      end += group.rows[static_cast<size_t>(i)].count;
      const tensor from = rows_of(v.block.normed, end - 1, 1);
      NEUROSHARD_CO_TRY(e.queue().copy(rows_of(last, i, 1).data, from.data, from.bytes()));
    }
  }
  logits = make_tensor(at_offset(lane.memory, lane.logits), dtype::f32, {rows, s.shape.vocab_capacity});
  co_return co_await e.linear(last, weights_access::head(*group.weights, s.shape), logits);
}

status sample_tokens(stage_state& s, const infer_lane& lane, row_group& group, tensor logits) {
  engine& e = *s.e;
  const auto rows = static_cast<int64_t>(group.rows.size());
  for (kernels::sample_params& p : group.samples)
    if (p.valid_vocab == 0 || p.valid_vocab > static_cast<uint64_t>(s.valid_vocab))
      p.valid_vocab = static_cast<uint32_t>(s.valid_vocab);
  group.sampled.resize(group.rows.size());
  group.logprobs.resize(group.rows.size());
  kernels::sample_args args;
  args.logits = logits;
  args.params = group.samples;
  args.ids = make_tensor(at_offset(lane.memory, lane.sampled), dtype::i32, {rows});
  if (group.logprobs_wanted)
    args.logprobs = make_tensor(at_offset(lane.memory, lane.logprobs), dtype::f32, {rows});
  auto scratch = e.workspace(e.ops().sample_workspace(e.d(), args));
  if (!scratch.ok())
    return scratch.status();
  args.workspace = *scratch;
  NEUROSHARD_TRY(e.ops().sample(e.q(), args));
  NEUROSHARD_TRY(e.queue().copy(group.sampled.data(), args.ids.data, args.ids.bytes()));
  if (group.logprobs_wanted)
    NEUROSHARD_TRY(e.queue().copy(group.logprobs.data(), args.logprobs.data, args.logprobs.bytes()));
  return {};
}

/// Where results that go back as tensors are gathered.
struct gathered {
  std::shared_ptr<std::byte[]> hidden, logits;
  dtype reply = dtype::f32;
  std::vector<int64_t> hidden_at; ///< first row in `hidden` of each input row
};

sliced<status> run_group(stage_state& s, const infer_lane& lane, const infer_input& in, row_group& group,
                         gathered& results) {
  engine& e = *s.e;
  fill_operands(in, group);
  lane_views v = views_of(s, lane, static_cast<int64_t>(group.positions.size()));
  NEUROSHARD_CO_TRY(bring_input(s, in, group, v));
  NEUROSHARD_CO_TRY(co_await infer_layers(s, group, v, in.want != infer_result::nothing));
  if (in.want == infer_result::hidden) {
    auto exported = export_rows(e, v.block.hidden, results.reply, v.wire);
    if (!exported.ok())
      co_return exported.status();
    const uint64_t row_bytes = static_cast<uint64_t>(s.shape.hidden_dim) * kernels::size_of(results.reply);
    uint64_t from = 0;
    for (const running_row& row : group.rows) {
      const uint64_t bytes = static_cast<uint64_t>(row.count) * row_bytes;
      std::copy_n(exported->view.as<std::byte>() + from, bytes,
                  results.hidden.get() + static_cast<uint64_t>(results.hidden_at[row.index]) * row_bytes);
      from += bytes;
    }
  } else if (in.want == infer_result::logits || in.want == infer_result::token) {
    tensor logits;
    NEUROSHARD_CO_TRY(co_await infer_logits(s, lane, group, v, logits));
    if (in.want == infer_result::token) {
      NEUROSHARD_CO_TRY(sample_tokens(s, lane, group, logits));
    } else {
      const uint64_t row_bytes = static_cast<uint64_t>(s.shape.vocab_capacity) * sizeof(float);
      for (size_t i = 0; i < group.rows.size(); ++i)
        NEUROSHARD_CO_TRY(e.queue().copy(results.logits.get() + group.rows[i].index * row_bytes,
                                         rows_of(logits, static_cast<int64_t>(i), 1).data, row_bytes));
    }
  }
  co_return e.queue().wait();
}

/// The rows that run, by the copy their sessions are pinned to.
std::vector<row_group> group_rows(std::vector<running_row> rows) {
  std::vector<row_group> groups;
  for (const running_row& row : rows) {
    auto found = std::find_if(groups.begin(), groups.end(),
                              [&](const row_group& g) { return g.weights == row.cache->weights; });
    if (found == groups.end()) {
      groups.push_back({});
      found = groups.end() - 1;
      found->weights = row.cache->weights;
    }
    found->rows.push_back(row);
  }
  return groups;
}

} // namespace

sliced<result<infer_output>> run_infer(stage_state& s, infer_input in, bool prefill) {
  infer_lane& lane = prefill ? s.prefill_lane : s.decode_lane;
  NEUROSHARD_CO_TRY(check_infer(s, in, lane, prefill));
  const busy_guard busy(lane.busy);
  session_table& table = *s.sessions;
  session_guard sessions(table);
  infer_output out;
  out.rows.resize(in.rows.size());
  std::vector<running_row> running;
  gathered results;
  results.reply = in.reply == dtype::unspecified ? s.e->act() : in.reply;
  results.hidden_at.resize(in.rows.size());
  int64_t position = 0;
  int64_t hidden_rows = 0;
  for (size_t i = 0; i < in.rows.size(); ++i) {
    const infer_row& row = in.rows[i];
    infer_row_output& answer = out.rows[i];
    if (row.count > 0) {
      session* cache = nullptr;
      answer.status = admit(s, in, row, prefill, cache);
      if (answer.status == infer_status::ok) {
        sessions.hold(*cache);
        running.push_back({i, cache, position, row.count});
        results.hidden_at[i] = hidden_rows;
        hidden_rows += row.count;
      } else if (cache != nullptr) {
        answer.cache_length = static_cast<uint32_t>(cache->length);
      }
    }
    position += row.count;
  }
  if (in.want == infer_result::hidden)
    results.hidden = host_memory(static_cast<uint64_t>(hidden_rows * s.shape.hidden_dim) *
                                 kernels::size_of(results.reply));
  if (in.want == infer_result::logits) {
    const uint64_t bytes = in.rows.size() * static_cast<uint64_t>(s.shape.vocab_capacity) * sizeof(float);
    results.logits = host_memory(bytes);
    std::fill_n(results.logits.get(), bytes, std::byte{0});
  }
  std::vector<row_group> groups = group_rows(std::move(running));
  const wait_at_end drain(*s.e);
  for (row_group& group : groups) {
    NEUROSHARD_CO_TRY(co_await run_group(s, lane, in, group, results));
    for (size_t i = 0; i < group.rows.size(); ++i) {
      const running_row& row = group.rows[i];
      infer_row_output& answer = out.rows[row.index];
      row.cache->length = static_cast<int64_t>(in.rows[row.index].cache_position) + row.count;
      answer.cache_length = static_cast<uint32_t>(row.cache->length);
      if (!group.sampled.empty()) {
        answer.token = group.sampled[i];
        answer.logprob = group.logprobs[i];
      }
    }
  }
  for (const infer_row& row : in.rows)
    if (row.close)
      table.release(row.session);
  if (in.want == infer_result::hidden) {
    out.hidden.view = make_tensor(results.hidden.get(), results.reply, {hidden_rows, s.shape.hidden_dim});
    out.hidden.owner = std::move(results.hidden);
  }
  if (in.want == infer_result::logits) {
    out.logits.view = make_tensor(results.logits.get(), dtype::f32,
                                  {static_cast<int64_t>(in.rows.size()), s.shape.vocab_capacity});
    out.logits.owner = std::move(results.logits);
  }
  co_return out;
}

} // namespace neuroshard::model

#include "kernels/model/stage.hpp"

#include "kernels/model/stage_state.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::model {

namespace {

status refuse(std::string what) {
  return {code::invalid_argument, std::move(what)};
}

status check_options(const architecture& a, const stage_options& o) {
  NEUROSHARD_TRY(check(a));
  if (o.layer_begin < 0 || o.layer_begin > o.layer_end || o.layer_end > a.num_layers)
    return refuse("layers " + std::to_string(o.layer_begin) + " ... " + std::to_string(o.layer_end) +
                  " are no range of a model of " + std::to_string(a.num_layers));
  if (o.embed && o.layer_begin != 0)
    return refuse("a stage with the embedding begins at layer 0");
  if (o.head && o.layer_end != a.num_layers)
    return refuse("a stage with the head ends at the last layer");
  if (o.head && a.tie_embeddings && !o.embed)
    return refuse("a tied head needs the embedding on the same stage");
  if (o.layer_begin == o.layer_end && !o.embed && !o.head)
    return refuse("a stage holds at least one layer, the embedding or the head");
  if (o.compute != dtype::f32 && o.compute != dtype::bf16)
    return refuse("a stage computes in f32 or bf16");
  if (o.train && (o.train_tokens_max < 1 || o.train_tokens_max > (int64_t{1} << 24U)))
    return refuse("train_tokens_max must be 1 ... 16777216 on a stage that trains");
  if (o.train_slots < 0 || o.train_slots > 1024)
    return refuse("train_slots must be 0 ... 1024");
  if (o.sessions_max < 1 || o.sessions_max > 65536 || o.decode_rows_max < 1 || o.decode_rows_max > 4096 ||
      o.prefill_rows_max < o.decode_rows_max || o.prefill_rows_max > 65536)
    return refuse(
        "sessions_max must be 1 ... 65536, decode_rows_max 1 ... 4096, prefill_rows_max at least that");
  if (o.head_tile_rows < 1 || !(o.slice_flops >= 1))
    return refuse("head_tile_rows and slice_flops must be positive");
  return {};
}

} // namespace

tensor stage_state::device_table() const {
  return make_tensor(table_memory->address, dtype::i32,
                     {sessions->sessions_max(), sessions->blocks_per_session()});
}

tensor stage_state::kv_cache(int64_t layer, bool values) const {
  const int64_t blocks = sessions->blocks_total();
  const auto one = static_cast<uint64_t>(blocks * kernels::kv_block * shape.kv_width()) * e->act_size();
  const uint64_t at = one * (2 * static_cast<uint64_t>(layer) + (values ? 1 : 0));
  return make_tensor(at_offset(kv_memory, at), e->act(),
                     {blocks, kernels::kv_block, shape.num_kv_heads, shape.head_dim()});
}

namespace {

status build_lane(stage_state& s, infer_lane& lane, int64_t rows) {
  const engine& e = *s.e;
  const int64_t d = s.shape.hidden_dim;
  const int64_t heads = s.options.decode_rows_max; // at most so many rows are sampled in one call
  memory_layout at;
  lane.rows_max = rows;
  lane.block = block_layout(e, rows, false, at);
  const auto act = [&](int64_t count) { return at.add(static_cast<uint64_t>(count * d) * e.act_size()); };
  const auto words = [&](int64_t count) { return at.add(static_cast<uint64_t>(count) * 4); };
  lane.out = act(rows);
  lane.ids = words(rows);
  lane.positions = words(rows);
  lane.row_cache = words(rows);
  lane.wire = s.whole() ? 0 : words(rows * d);
  if (s.options.head) {
    lane.last_rows = act(heads);
    lane.logits = words(heads * s.shape.vocab_capacity);
    lane.sampled = words(heads);
    lane.logprobs = words(heads);
  }
  auto memory = allocate(*s.e->device(), at.bytes());
  if (!memory.ok())
    return memory.status();
  lane.memory = *memory;
  s.fixed.workspace += at.bytes();
  return {};
}

} // namespace

status build_inference(stage_state& s) {
  if (s.options.kv_pool_bytes == 0)
    return {};
  const int64_t layers = std::max<int64_t>(s.layers(), 1);
  const uint64_t block_bytes =
      kv_bytes_per_token(s.shape, s.options.compute) * static_cast<uint64_t>(kernels::kv_block * layers);
  const auto blocks = static_cast<int64_t>(s.options.kv_pool_bytes / block_bytes);
  if (blocks < 1 || blocks > INT32_MAX)
    return refuse("a KV pool of " + std::to_string(s.options.kv_pool_bytes) +
                  " bytes is not possible; a block of " + std::to_string(kernels::kv_block) +
                  " positions takes " + std::to_string(block_bytes));
  const int64_t per_session = (s.shape.max_seq_len + kernels::kv_block - 1) / kernels::kv_block;
  s.sessions =
      std::make_unique<session_table>(s.options.sessions_max, blocks, per_session, s.options.idle_after);
  auto pool = allocate(*s.e->device(), static_cast<uint64_t>(blocks) * block_bytes);
  if (!pool.ok())
    return pool.status();
  s.kv_memory = *pool;
  auto table =
      allocate(*s.e->device(), static_cast<uint64_t>(s.options.sessions_max * per_session) * sizeof(int32_t));
  if (!table.ok())
    return table.status();
  s.table_memory = *table;
  s.fixed.kv_pool = s.kv_memory->bytes + s.table_memory->bytes;
  NEUROSHARD_TRY(s.e->fill_zero(s.device_table()));
  NEUROSHARD_TRY(build_lane(s, s.prefill_lane, s.options.prefill_rows_max));
  return build_lane(s, s.decode_lane, s.options.decode_rows_max);
}

result<std::unique_ptr<stage>> stage::make(kernels::device_ptr device, architecture shape,
                                           stage_options options) {
  NEUROSHARD_TRY(check_options(shape, options));
  if (options.train_slots == 0)
    options.train_slots = 4;
  auto state = std::make_unique<stage_state>();
  auto e = engine::make(std::move(device), shape, options.compute, options.slice_flops);
  if (!e.ok())
    return e.status();
  state->e = std::move(*e);
  state->shape = shape;
  state->options = options;
  state->valid_vocab = shape.vocab_capacity;
  state->units = units_of(shape, options.layer_begin, options.layer_end, options.embed, options.head);
  if (options.embed)
    state->embed_at = 0;
  if (options.head)
    state->head_at = state->units.size() - 1;
  state->first_block = options.embed ? 1 : 0;
  state->fixed.workspace += state->e->constant_bytes();
  NEUROSHARD_TRY(build_weights(*state));
  NEUROSHARD_TRY(build_training(*state));
  NEUROSHARD_TRY(build_inference(*state));
  NEUROSHARD_TRY(state->e->queue().wait());
  return std::unique_ptr<stage>(new stage(std::move(state)));
}

stage::stage(std::unique_ptr<stage_state> state) : state_(std::move(state)) {}
stage::~stage() {
  (void)state_->e->queue().wait();
}

const architecture& stage::shape() const noexcept {
  return state_->shape;
}
const stage_options& stage::options() const noexcept {
  return state_->options;
}
kernels::queue& stage::queue() noexcept {
  return state_->e->queue();
}
std::span<const unit> stage::units() const noexcept {
  return state_->units;
}

int64_t stage::parameters() const noexcept {
  int64_t count = 0;
  for (const unit& u : state_->units)
    count += u.count;
  return count;
}

memory_use stage::planned() const {
  memory_use use = state_->fixed;
  use.workspace += state_->e->workspace_bytes();
  for (const auto& held : state_->copies)
    if (const auto copy = held.lock())
      use.serving += copy->bytes();
  return use;
}

status stage::set_valid_vocab(int64_t columns) {
  if (columns < 1 || columns > state_->shape.vocab_capacity)
    return refuse("the vocabulary in use must be 1 ... " + std::to_string(state_->shape.vocab_capacity) +
                  ", not " + std::to_string(columns));
  state_->valid_vocab = columns;
  return {};
}

sliced<status> stage::initialize(uint64_t seed) {
  return run_initialize(*state_, seed);
}
status stage::read(std::string_view name, parameter_part part, int64_t first, std::span<float> out) {
  return read_parameter(*state_, name, part, first, out);
}
status stage::write(std::string_view name, parameter_part part, int64_t first, std::span<const float> in) {
  return write_parameter(*state_, name, part, first, in);
}
sliced<status> stage::refresh_weights() {
  return run_refresh_weights(*state_);
}
status stage::release_masters() {
  return model::release_masters(*state_);
}
bool stage::holds_masters() const noexcept {
  return masters_held(*state_);
}
uint64_t stage::optimizer_t() const noexcept {
  return state_->t;
}
void stage::set_optimizer_t(uint64_t t) noexcept {
  state_->t = t;
}
sliced<result<std::vector<kernels::digest>>> stage::unit_hashes() {
  return run_unit_hashes(*state_);
}

sliced<result<train_output>> stage::forward_train(train_input input) {
  return run_forward_train(*state_, std::move(input));
}
sliced<result<activations>> stage::backward(microbatch_key key, activations grad_output, dtype reply) {
  return run_backward(*state_, std::move(key), std::move(grad_output), reply);
}
sliced<result<double>> stage::gradient_norm_sq() {
  return run_gradient_norm(*state_);
}
sliced<result<gradient_probe>> stage::sample_gradient(std::vector<uint64_t> draws) {
  return run_sample_gradient(*state_, std::move(draws));
}
sliced<result<apply_output>> stage::apply(optimizer_step step) {
  return run_apply(*state_, step);
}
sliced<status> stage::discard() {
  return run_discard(*state_);
}

size_t stage::saved_microbatches() const noexcept {
  const auto used = [](const auto& held) { return held.used; };
  return static_cast<size_t>(std::count_if(state_->slots.begin(), state_->slots.end(), used) +
                             std::count_if(state_->kept.begin(), state_->kept.end(), used));
}
bool stage::holds_gradient() const noexcept {
  return state_->gradient_held;
}

sliced<result<serving_ptr>> stage::make_serving_copy(uint64_t version, bool canonical) {
  return run_make_serving_copy(*state_, version, canonical);
}
serving_ptr stage::newest() const noexcept {
  return state_->newest;
}
sliced<result<score_output>> stage::score(score_input input) {
  return run_score(*state_, std::move(input));
}
sliced<result<infer_output>> stage::infer(infer_input input, bool prefill) {
  return run_infer(*state_, std::move(input), prefill);
}

size_t stage::sessions() const noexcept {
  return state_->sessions ? state_->sessions->size() : 0;
}
std::optional<uint32_t> stage::session_length(std::string_view session) const {
  const auto* s = state_->sessions ? state_->sessions->find(session) : nullptr;
  return s == nullptr ? std::nullopt : std::optional(static_cast<uint32_t>(s->length));
}
serving_ptr stage::session_weights(std::string_view session) const {
  const auto* s = state_->sessions ? state_->sessions->find(session) : nullptr;
  return s == nullptr ? nullptr : s->weights;
}
bool stage::release(std::string_view session) {
  return state_->sessions && state_->sessions->release(session);
}
size_t stage::expire(std::chrono::steady_clock::time_point idle_since) {
  return state_->sessions ? state_->sessions->expire(idle_since) : 0;
}
size_t stage::retire_copies_before(uint64_t id) {
  return state_->sessions ? state_->sessions->retire_copies_before(id) : 0;
}
uint64_t stage::kv_blocks_total() const noexcept {
  return state_->sessions ? static_cast<uint64_t>(state_->sessions->blocks_total()) : 0;
}
uint64_t stage::kv_blocks_free() const noexcept {
  return state_->sessions ? static_cast<uint64_t>(state_->sessions->blocks_free()) : 0;
}

} // namespace neuroshard::model

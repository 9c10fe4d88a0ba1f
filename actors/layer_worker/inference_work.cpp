// Inference: PREFILL, DECODE and SCORE on the serving copy.
#include "actors/common/kernel_error.hpp"
#include "actors/layer_worker/layer_worker.hpp"
#include "kernels/core/sha256.hpp"

#include <algorithm>
#include <chrono>

namespace neuroshard {

namespace {

constexpr size_t session_id_max = 64;

/// Key of Philox(seed, step): the first 8 bytes, little-endian, of SHA-256(seed as u64 LE) (model.md section
/// 3). Neighbouring seeds have unrelated keys.
uint64_t draw_key(uint64_t seed) {
  uint8_t text[8];
  for (size_t i = 0; i < sizeof text; ++i)
    text[i] = static_cast<uint8_t>(seed >> (8 * i));
  const auto digest = kernels::sha256().update(text, sizeof text).finish();
  uint64_t key = 0;
  for (size_t i = 0; i < sizeof key; ++i)
    key |= uint64_t{digest[i]} << (8 * i);
  return key;
}

kernels::sample_params params_of(const sample_spec& spec) {
  return {spec.temperature, spec.top_p, spec.top_k, spec.valid_vocab, draw_key(spec.seed), spec.step};
}

caf::error check_sample(const sample_spec& spec, int64_t vocab) {
  if (!(spec.temperature >= 0 && spec.temperature <= 1000) || !(spec.top_p > 0 && spec.top_p <= 1))
    return bad_field("sample", "temperature must be 0 - 1000 and top_p in (0, 1]");
  if (spec.valid_vocab < 4 || spec.valid_vocab > vocab)
    return bad_field("sample.valid_vocab", "must be 4 - " + std::to_string(vocab));
  return {};
}

/// The request as rows: those it lists, or the one of its header.
std::vector<session_row> rows_of(const forward_request& request) {
  if (!request.rows.empty())
    return request.rows;
  session_row row;
  row.session_id = request.header.session_id;
  row.cache_position = request.cache_position;
  row.sample = request.sample;
  row.close = request.close_session;
  return {std::move(row)};
}

row_status status_of(model::infer_status status) {
  return static_cast<row_status>(status);
}

} // namespace

caf::expected<model::infer_input> layer_worker_state::infer_rows(const forward_request& request,
                                                                 batch_shape& shape) const {
  const auto rows = rows_of(request);
  const bool decode = request.mode == forward_mode::decode;
  const bool frees_only = !request.token_ids && !request.hidden;
  const auto& limits = stage->options();
  if (request.positions || request.labels)
    return bad_field("positions", "PREFILL and DECODE take neither positions nor labels");
  if (frees_only) {
    if (!std::all_of(rows.begin(), rows.end(), [](const auto& row) { return row.close; }))
      return bad_field("token_ids", "without a tensor a request can only close sessions");
    shape = {static_cast<int64_t>(rows.size()), 0, {}};
  } else {
    auto found = shape_of(request, stage->shape().hidden_dim,
                          decode ? limits.decode_rows_max : limits.prefill_rows_max);
    if (!found)
      return std::move(found.error());
    shape = std::move(*found);
  }
  if (shape.batch != static_cast<int64_t>(rows.size()) || (decode && !frees_only && shape.seq != 1))
    return bad_field("rows",
                     "there must be one row of the batch for each session, and one position each in DECODE");
  model::infer_input input;
  std::set<std::string> seen;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& row = rows[i];
    if (row.session_id.empty() || row.session_id.size() > session_id_max ||
        !seen.insert(row.session_id).second)
      return bad_field("rows.session_id", "must be different for each row, 1 - 64 characters");
    if (row.sample.has_value() != rows.front().sample.has_value())
      return bad_field("rows.sample", "either every row has it or none");
    if (row.sample)
      if (auto refused = check_sample(*row.sample, stage->shape().vocab_capacity))
        return refused;
    model::infer_row out;
    out.session = row.session_id;
    out.cache_position = row.cache_position;
    out.count = frees_only ? 0 : shape.lengths.empty() ? shape.seq : shape.lengths[i];
    out.close = row.close;
    if (row.sample && request.apply_head) {
      out.sample = params_of(*row.sample);
      out.want_logprob = row.sample->want_logprob;
    }
    input.rows.push_back(std::move(out));
  }
  auto ids = integers_of(request.token_ids, "token_ids", shape, 0,
                         static_cast<int32_t>(stage->shape().vocab_capacity) - 1, 0);
  if (!ids)
    return std::move(ids.error());
  for (int64_t b = 0; b < shape.batch && !ids->empty(); ++b) {
    const auto first = ids->begin() + b * shape.seq;
    input.token_ids.insert(input.token_ids.end(), first, first + input.rows[static_cast<size_t>(b)].count);
  }
  auto hidden = without_padding(request.hidden, shape);
  if (!hidden)
    return std::move(hidden.error());
  input.hidden = std::move(*hidden);
  input.reply = request.reply_dtype;
  if (request.apply_head && !limits.head)
    return bad_field("apply_head", "the head is not held here");
  if (request.omit_tensors || frees_only)
    input.want = model::infer_result::nothing;
  else if (!request.apply_head)
    input.want = model::infer_result::hidden;
  else
    input.want = rows.front().sample ? model::infer_result::token : model::infer_result::logits;
  return input;
}

forward_reply layer_worker_state::infer_reply(const forward_request& request, const batch_shape& shape,
                                              model::infer_output&& output) const {
  forward_reply reply;
  reply.request_id = request.header.request_id;
  reply.report.optimizer_step = stage->optimizer_t();
  const auto rows = rows_of(request);
  const bool sampled = request.apply_head && rows.front().sample && !request.omit_tensors;
  const bool logprobs =
      sampled && std::any_of(rows.begin(), rows.end(), [](const auto& r) { return r.sample->want_logprob; });
  batch_shape held = shape;
  bool some_failed = false;
  for (size_t i = 0; i < output.rows.size(); ++i) {
    const auto& row = output.rows[i];
    const bool ok = row.status == model::infer_status::ok;
    const auto pinned = ok ? stage->session_weights(rows[i].session_id) : nullptr;
    reply.rows.push_back({status_of(row.status), row.cache_length, pinned ? pinned->id() : 0, {}});
    if (sampled)
      reply.sampled.push_back(ok ? row.token : -1);
    if (logprobs)
      reply.logprobs.push_back(ok ? row.logprob : 0);
    some_failed = some_failed || !ok;
  }
  if (some_failed) { // their rows are zero, in their place
    if (held.lengths.empty())
      held.lengths.assign(static_cast<size_t>(held.batch), static_cast<int32_t>(held.seq));
    for (size_t i = 0; i < output.rows.size(); ++i)
      if (output.rows[i].status != model::infer_status::ok)
        held.lengths[i] = 0;
  }
  if (request.rows.empty())
    reply.report.cache_length = output.rows.front().cache_length;
  if (output.hidden)
    reply.hidden = with_padding(output.hidden, held);
  if (output.logits)
    reply.logits = handle_of(output.logits, {shape.batch, stage->shape().vocab_capacity});
  return reply;
}

layer_worker_state::work<forward_reply> layer_worker_state::infer(forward_request request) {
  batch_shape shape;
  auto input = infer_rows(request, shape);
  if (!input)
    co_return std::move(input.error());
  const auto* newest = copies.newest();
  if (newest == nullptr)
    co_return refuse(errc::not_ready, "there is no serving copy of the weights yet");
  const bool begins = std::any_of(input->rows.begin(), input->rows.end(),
                                  [](const auto& r) { return r.count > 0 && r.cache_position == 0; });
  if (begins && request.header.model_version != newest->info.model_version) {
    problem what;
    what.reason = "model_version";
    what.message = "this node serves version " + std::to_string(newest->info.model_version);
    what.details = {{"model_version", static_cast<int64_t>(newest->info.model_version)}};
    co_return refuse(errc::failed_precondition, std::move(what));
  }
  // Idle sessions are counted by the worker's own clock, which a test moves.
  input->now = std::chrono::steady_clock::time_point(std::chrono::microseconds(time->steady_us()));
  auto output = co_await stage->infer(std::move(*input), request.mode == forward_mode::prefill);
  if (!output.ok())
    co_return refuse(output.status());
  auto reply = infer_reply(request, shape, std::move(*output));
  if (request.rows.empty() && reply.rows.front().status != row_status::ok) {
    problem what;
    what.details = {{"cache_length", static_cast<int64_t>(reply.rows.front().cache_length)}};
    switch (reply.rows.front().status) {
    case row_status::unknown_session:
      what.message = "no such session is held here";
      co_return refuse(errc::not_found, std::move(what));
    case row_status::cache_mismatch:
      what.reason = "cache";
      what.message = "the position is beyond what this session holds";
      co_return refuse(errc::failed_precondition, std::move(what));
    case row_status::evicted:
      what.message = "the session was evicted";
      co_return refuse(errc::aborted, std::move(what));
    default:
      what.message = "no room for the session's keys and values";
      co_return refuse(errc::overloaded, std::move(what));
    }
  }
  co_return reply;
}

layer_worker_state::work<forward_reply> layer_worker_state::score(forward_request request) {
  auto shape = shape_of(request, stage->shape().hidden_dim,
                        std::max(stage->options().train_tokens_max, stage->options().prefill_rows_max));
  if (!shape)
    co_return std::move(shape.error());
  const auto vocab = static_cast<int32_t>(stage->shape().vocab_capacity);
  auto ids = integers_of(request.token_ids, "token_ids", *shape, 0, vocab - 1, 0);
  if (!ids)
    co_return std::move(ids.error());
  auto positions = integers_of(request.positions, "positions", *shape, 0,
                               static_cast<int32_t>(stage->shape().max_seq_len) - 1, 0);
  if (!positions)
    co_return std::move(positions.error());
  auto labels = integers_of(request.labels, "labels", *shape, 0, vocab - 1, no_label);
  if (!labels)
    co_return std::move(labels.error());
  if (request.apply_head && !stage->options().head)
    co_return bad_field("apply_head", "the head is not held here");
  if (copies.newest() == nullptr)
    co_return refuse(errc::not_ready, "there is no serving copy of the weights yet");
  model::score_input input;
  input.sequences = shape->batch;
  input.positions_per_sequence = shape->seq;
  input.token_ids = std::move(*ids);
  input.hidden = flat(request.hidden);
  input.positions = std::move(*positions);
  input.lengths = shape->lengths;
  if (request.apply_head)
    input.labels = std::move(*labels);
  input.weights = stage->newest();
  input.reply = request.reply_dtype;
  auto output = co_await stage->score(std::move(input));
  if (!output.ok())
    co_return refuse(output.status());
  forward_reply reply;
  reply.request_id = request.header.request_id;
  reply.loss = output->loss;
  reply.label_count = output->label_count;
  if (output->hidden && !request.omit_tensors)
    reply.hidden = handle_of(output->hidden, {shape->batch, shape->seq, stage->shape().hidden_dim});
  if (output->logits)
    reply.logits = handle_of(output->logits, {shape->batch, stage->shape().vocab_capacity});
  reply.report.optimizer_step = stage->optimizer_t();
  co_return reply;
}

} // namespace neuroshard

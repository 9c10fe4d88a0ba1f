#include "gateway/grpc/work_codec.hpp"

#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/tensor_codec.hpp"
#include "neuroshard/work.pb.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

namespace neuroshard::rpc {

namespace {

constexpr int rows_most = 4'096; ///< a batch is no larger (actors/layer_worker)
constexpr int receipts_most = 4'096;
constexpr size_t id_most = 64;
constexpr size_t address_most = 260; ///< a DNS name, a colon, a port
constexpr uint32_t layers_most = 65'536;

/// Fields that are Tensors.
enum forward_tensors : uint32_t { hidden = 5, token_ids = 6, positions = 7, labels = 11 };
enum reply_tensors : uint32_t { reply_hidden = 2, reply_logits = 3, reply_grad_hidden = 8 };
enum backward_tensors : uint32_t { grad_output = 6, grad_input = 2 };
constexpr uint32_t forward_fields[] = {hidden, token_ids, positions, labels};
constexpr uint32_t reply_fields[] = {reply_hidden, reply_logits, reply_grad_hidden};
constexpr uint32_t backward_fields[] = {grad_output};
constexpr uint32_t backward_reply_fields[] = {grad_input};

bool is_short_id(std::string_view text) {
  return text.size() <= id_most &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > 0x20 && c <= 0x7e; });
}

/// Takes a message apart and parses what is small.
template <class Message>
caf::expected<wire_message> parse(const grpc::ByteBuffer& from, std::span<const uint32_t> fields,
                                  Message& to) {
  auto parts = take_apart(from, fields);
  if (parts && !to.ParseFromString(parts->small))
    return malformed("", "The message is malformed.");
  return parts;
}

caf::error take_tensor_of(const wire_message& from, uint32_t field, tensor_kind kind, const char* name,
                          tensor_handle& to) {
  const auto at = from.tensors.find(field);
  if (at == from.tensors.end())
    return {};
  auto tensor = read_tensor(at->second, kind, name);
  if (!tensor)
    return tensor.error();
  to = std::move(*tensor);
  return {};
}

caf::error read_header(const Header& from, work_header& to) {
  if (!is_short_id(from.session_id()))
    return malformed("header.session_id", "A session id is a short word.");
  if (!is_short_id(from.architecture_id()))
    return malformed("header.architecture_id", "An architecture id is a short word.");
  if (!is_short_id(from.trace_id()))
    return malformed("header.trace_id", "A trace id is a short word.");
  to.request_id = from.request_id(); // its length: time_left() of unary.hpp
  to.session_id = from.session_id();
  to.model_version = from.model_version();
  to.architecture_id = from.architecture_id();
  to.trace_id = from.trace_id();
  return {};
}

void write_header(const work_header& from, const call_header& call, Header& to) {
  to.set_request_id(call.request_id);
  to.set_session_id(from.session_id);
  to.set_model_version(from.model_version);
  to.set_architecture_id(from.architecture_id);
  to.set_trace_id(from.trace_id);
  to.set_budget_ms(call.budget_ms);
}

caf::error read_layers(uint32_t begin, uint32_t end) {
  if (begin > end || end > layers_most)
    return malformed("layer_end", "A range of layers ends where it begins, or later.");
  return {};
}

template <class Hops>
caf::error read_route(const Hops& from, std::vector<work_hop>& to) {
  if (static_cast<size_t>(from.size()) > route_hops_max)
    return malformed("route", "A route has too many hops.");
  to.reserve(static_cast<size_t>(from.size()));
  for (const Hop& one : from) {
    work_hop hop;
    if (!is_lower_hex(one.node_id(), 32))
      return malformed("route.node_id", "A node id is 32 hex digits.");
    if (one.address().size() > address_most || !std::all_of(one.address().begin(), one.address().end(),
                                                            [](char c) { return c > 0x20 && c <= 0x7e; }))
      return malformed("route.address", "An address is host:port.");
    if (auto wrong = read_layers(one.layer_begin(), one.layer_end()))
      return malformed("route.layer_end", "A range of layers ends where it begins, or later.");
    if (!one.tls_cert_sha256().empty()) {
      auto& hash = hop.tls_cert_sha256.emplace();
      if (one.tls_cert_sha256().size() != hash.size())
        return malformed("route.tls_cert_sha256", "A certificate's hash has 32 bytes.");
      std::copy(one.tls_cert_sha256().begin(), one.tls_cert_sha256().end(), hash.begin());
    }
    hop.node_id = one.node_id();
    hop.address = one.address();
    hop.layer_begin = one.layer_begin();
    hop.layer_end = one.layer_end();
    to.push_back(std::move(hop));
  }
  return {};
}

template <class Message>
void write_route(const std::vector<work_hop>& from, Message& to) {
  for (const auto& one : from) {
    auto& hop = *to.add_route();
    hop.set_node_id(one.node_id);
    hop.set_address(one.address);
    hop.set_layer_begin(one.layer_begin);
    hop.set_layer_end(one.layer_end);
    if (one.tls_cert_sha256)
      hop.set_tls_cert_sha256(one.tls_cert_sha256->data(), one.tls_cert_sha256->size());
  }
}

caf::error read_sample(const SampleSpec& from, const char* field, sample_spec& to) {
  if (!std::isfinite(from.temperature()) || from.temperature() < 0)
    return malformed(field, "A temperature is a number from 0 on.");
  if (!std::isfinite(from.top_p()) || from.top_p() < 0 || from.top_p() > 1)
    return malformed(field, "top_p is a number from 0 to 1.");
  to = {from.temperature(), from.top_k(),       from.top_p(),       from.seed(),
        from.step(),        from.valid_vocab(), from.want_logprob()};
  return {};
}

void write_sample(const sample_spec& from, SampleSpec& to) {
  to.set_temperature(from.temperature);
  to.set_top_k(from.top_k);
  to.set_top_p(from.top_p);
  to.set_seed(from.seed);
  to.set_step(from.step);
  to.set_valid_vocab(from.valid_vocab);
  to.set_want_logprob(from.want_logprob);
}

caf::error read_rows(const ForwardRequest& from, std::vector<session_row>& to) {
  if (from.rows_size() > rows_most)
    return malformed("rows", "There are too many rows.");
  to.reserve(static_cast<size_t>(from.rows_size()));
  const bool sampled = from.rows_size() > 0 && from.rows(0).has_sample();
  for (const Row& one : from.rows()) {
    session_row row;
    if (!is_short_id(one.session_id()) || one.session_id().empty() || !is_short_id(one.request_id()))
      return malformed("rows.session_id", "A row has a session id and a request id, short words both.");
    if (one.has_sample() != sampled)
      return malformed("rows.sample", "Either every row is sampled or none.");
    if (one.has_sample())
      if (auto wrong = read_sample(one.sample(), "rows.sample", row.sample.emplace()))
        return wrong;
    row.session_id = one.session_id();
    row.cache_position = one.cache_position();
    row.request_id = one.request_id();
    row.close = one.close();
    to.push_back(std::move(row));
  }
  return {};
}

/// Unspecified is allowed: the other side's choice.
caf::error read_reply_dtype(DType from, kernels::dtype& to) {
  if (!DType_IsValid(from))
    return malformed("reply_dtype", "This element type is not known.");
  to = static_cast<kernels::dtype>(from);
  return {};
}

caf::error first_of(std::initializer_list<caf::error> all) {
  for (const auto& one : all)
    if (one)
      return one;
  return {};
}

/// What is wrong with a reply is the peer's fault, not the caller's.
caf::error bad_reply(const caf::error& why) {
  auto what = problem_of(why);
  what.message = "The peer's reply is unusable: " + what.message;
  what.reason = "bad_reply";
  return refuse(errc::unavailable, std::move(what));
}

template <class Reports>
caf::error read_reports(const Reports& from, std::vector<hop_report>& to) {
  if (static_cast<size_t>(from.size()) > route_hops_max + 1)
    return malformed("hops", "There are too many reports.");
  to.reserve(static_cast<size_t>(from.size()));
  for (const HopReport& one : from) {
    if (!is_lower_hex(one.node_id(), 32))
      return malformed("hops.node_id", "A node id is 32 hex digits.");
    to.push_back({one.node_id(),
                  {one.cache_length(), one.compute_us(), one.queue_us(), one.ready(), one.grad_norm_sq(),
                   one.optimizer_step()}});
  }
  return {};
}

template <class Message>
void write_reports(const std::vector<hop_report>& from, Message& to) {
  for (const auto& one : from) {
    auto& hop = *to.add_hops();
    hop.set_node_id(one.node_id);
    hop.set_cache_length(one.share.cache_length);
    hop.set_compute_us(one.share.compute_us);
    hop.set_queue_us(one.share.queue_us);
    hop.set_ready(one.share.ready);
    hop.set_grad_norm_sq(one.share.grad_norm_sq);
    hop.set_optimizer_step(one.share.optimizer_step);
  }
}

template <class Blobs>
caf::error read_receipts(const Blobs& from, std::vector<signed_blob>& to) {
  if (from.size() > receipts_most)
    return malformed("receipts", "There are too many receipts.");
  for (const SignedBlob& one : from) {
    auto receipt = read(one, "receipts");
    if (!receipt)
      return receipt.error();
    to.push_back(std::move(*receipt));
  }
  return {};
}

template <class Message>
void write_receipts(const std::vector<signed_blob>& from, Message& to) {
  for (const auto& one : from)
    write(one, *to.add_receipts());
}

} // namespace

bool is_request_id(std::string_view text) noexcept {
  return text.size() >= 16 && is_short_id(text);
}

// ------------------------------------------------------------------------------------------------- requests

caf::error read(const grpc::ByteBuffer& from, routed_forward& to, Header& header) {
  ForwardRequest message;
  const auto parts = parse(from, forward_fields, message);
  if (!parts)
    return parts.error();
  auto& work = to.work;
  if (!ForwardMode_IsValid(message.mode()) || message.mode() == FORWARD_MODE_UNSPECIFIED)
    return malformed("mode", "This mode is not known.");
  work.mode = static_cast<forward_mode>(message.mode());
  if (message.sequence_lengths_size() > rows_most)
    return malformed("sequence_lengths", "There are too many lengths.");
  const float scale = message.loss_scale();
  if (work.mode == forward_mode::train && !(scale > 0 && scale <= 1))
    return malformed("loss_scale", "A loss scale is above 0 and at most 1.");
  if (auto wrong = first_of({read_header(message.header(), work.header),
                             read_layers(message.layer_begin(), message.layer_end()),
                             read_reply_dtype(message.reply_dtype(), work.reply_dtype),
                             read_route(message.route(), to.route), read_rows(message, work.rows)}))
    return wrong;
  if (message.has_sample())
    if (auto wrong = read_sample(message.sample(), "sample", work.sample.emplace()))
      return wrong;
  work.layer_begin = message.layer_begin();
  work.layer_end = message.layer_end();
  work.sequence_lengths.assign(message.sequence_lengths().begin(), message.sequence_lengths().end());
  work.cache_position = message.cache_position();
  work.apply_head = message.apply_head();
  work.microbatch_id = message.microbatch_id();
  work.step = message.step();
  work.close_session = message.close_session();
  if (work.mode == forward_mode::train)
    work.loss_scale = scale;
  work.last_microbatch = message.last_microbatch();
  work.omit_tensors = message.omit_tensors();
  header = std::move(*message.mutable_header());
  if (auto wrong = take_tensor_of(*parts, hidden, tensor_kind::values, "hidden", work.hidden))
    return wrong;
  return first_of({take_tensor_of(*parts, token_ids, tensor_kind::numbers, "token_ids", work.token_ids),
                   take_tensor_of(*parts, positions, tensor_kind::numbers, "positions", work.positions),
                   take_tensor_of(*parts, labels, tensor_kind::numbers, "labels", work.labels)});
}

caf::error write(const routed_forward& from, const call_header& header, grpc::ByteBuffer& to) {
  const auto& work = from.work;
  ForwardRequest message;
  write_header(work.header, header, *message.mutable_header());
  message.set_mode(static_cast<ForwardMode>(work.mode));
  message.set_layer_begin(work.layer_begin);
  message.set_layer_end(work.layer_end);
  message.mutable_sequence_lengths()->Add(work.sequence_lengths.begin(), work.sequence_lengths.end());
  message.set_cache_position(work.cache_position);
  message.set_apply_head(work.apply_head);
  if (work.sample)
    write_sample(*work.sample, *message.mutable_sample());
  message.set_microbatch_id(work.microbatch_id);
  message.set_step(work.step);
  message.set_reply_dtype(static_cast<DType>(work.reply_dtype));
  message.set_close_session(work.close_session);
  if (work.mode == forward_mode::train)
    message.set_loss_scale(work.loss_scale);
  write_route(from.route, message);
  for (const auto& one : work.rows) {
    auto& row = *message.add_rows();
    row.set_session_id(one.session_id);
    row.set_cache_position(one.cache_position);
    if (one.sample)
      write_sample(*one.sample, *row.mutable_sample());
    row.set_request_id(one.request_id);
    row.set_close(one.close);
  }
  message.set_last_microbatch(work.last_microbatch);
  message.set_omit_tensors(work.omit_tensors);
  message_writer writer{message.SerializeAsString()};
  if (auto wrong = first_of(
          {write_tensor(work.hidden, hidden, writer), write_tensor(work.token_ids, token_ids, writer),
           write_tensor(work.positions, positions, writer), write_tensor(work.labels, labels, writer)}))
    return wrong;
  to = writer.finish();
  return {};
}

caf::error read(const grpc::ByteBuffer& from, routed_backward& to, Header& header) {
  BackwardRequest message;
  const auto parts = parse(from, backward_fields, message);
  if (!parts)
    return parts.error();
  auto& work = to.work;
  if (!BackwardAction_IsValid(message.action()) || message.action() == BACKWARD_ACTION_UNSPECIFIED)
    return malformed("action", "This action is not known.");
  work.action = static_cast<backward_action>(message.action());
  if (auto wrong = first_of({read_header(message.header(), work.header),
                             read_layers(message.layer_begin(), message.layer_end()),
                             read_reply_dtype(message.reply_dtype(), work.reply_dtype),
                             read_route(message.route(), to.route)}))
    return wrong;
  work.layer_begin = message.layer_begin();
  work.layer_end = message.layer_end();
  work.microbatch_id = message.microbatch_id();
  work.step = message.step();
  header = std::move(*message.mutable_header());
  return take_tensor_of(*parts, grad_output, tensor_kind::values, "grad_output", work.grad_output);
}

caf::error write(const routed_backward& from, const call_header& header, grpc::ByteBuffer& to) {
  const auto& work = from.work;
  BackwardRequest message;
  write_header(work.header, header, *message.mutable_header());
  message.set_layer_begin(work.layer_begin);
  message.set_layer_end(work.layer_end);
  message.set_microbatch_id(work.microbatch_id);
  message.set_step(work.step);
  message.set_action(static_cast<BackwardAction>(work.action));
  message.set_reply_dtype(static_cast<DType>(work.reply_dtype));
  write_route(from.route, message);
  message_writer writer{message.SerializeAsString()};
  if (auto wrong = write_tensor(work.grad_output, grad_output, writer))
    return wrong;
  to = writer.finish();
  return {};
}

// -------------------------------------------------------------------------------------------------- replies

namespace {

caf::error read_forward_reply(const grpc::ByteBuffer& from, routed_forward_reply& to) {
  ForwardResponse message;
  const auto parts = parse(from, reply_fields, message);
  if (!parts)
    return parts.error();
  auto& work = to.work;
  if (!is_short_id(message.request_id()))
    return malformed("request_id", "A request id is a short word.");
  if (message.sampled_size() > rows_most || message.logprobs_size() > rows_most ||
      message.rows_size() > rows_most)
    return malformed("rows", "There are too many rows.");
  work.request_id = message.request_id();
  work.sampled.assign(message.sampled().begin(), message.sampled().end());
  work.logprobs.assign(message.logprobs().begin(), message.logprobs().end());
  work.loss = message.loss();
  work.label_count = message.label_count();
  if (!std::isfinite(message.aux_loss()))
    return malformed("aux_loss", "An auxiliary loss is a finite number.");
  work.aux_loss = message.aux_loss();
  work.rows.reserve(static_cast<size_t>(message.rows_size()));
  for (const RowReply& one : message.rows()) {
    row_reply row;
    // Of a status that is not known no more is to be had than that the row did not succeed.
    row.status = RowStatus_IsValid(one.status()) && one.status() != ROW_STATUS_UNSPECIFIED
                     ? static_cast<row_status>(one.status())
                     : row_status::unknown_session;
    row.cache_length = one.cache_length();
    if (!one.failed_node().empty() && !is_lower_hex(one.failed_node(), 32))
      return malformed("rows.failed_node", "A node id is 32 hex digits.");
    row.failed_node = one.failed_node();
    work.rows.push_back(std::move(row));
  }
  if (auto wrong =
          first_of({read_reports(message.hops(), to.hops), read_receipts(message.receipts(), to.receipts)}))
    return wrong;
  return first_of(
      {take_tensor_of(*parts, reply_hidden, tensor_kind::values, "hidden", work.hidden),
       take_tensor_of(*parts, reply_logits, tensor_kind::values, "logits", work.logits),
       take_tensor_of(*parts, reply_grad_hidden, tensor_kind::values, "grad_hidden", work.grad_hidden)});
}

caf::error read_backward_reply(const grpc::ByteBuffer& from, routed_backward_reply& to) {
  BackwardResponse message;
  const auto parts = parse(from, backward_reply_fields, message);
  if (!parts)
    return parts.error();
  if (!is_short_id(message.request_id()))
    return malformed("request_id", "A request id is a short word.");
  to.work.request_id = message.request_id();
  to.work.inner_steps = message.inner_steps();
  if (auto wrong =
          first_of({read_reports(message.hops(), to.hops), read_receipts(message.receipts(), to.receipts)}))
    return wrong;
  return take_tensor_of(*parts, grad_input, tensor_kind::values, "grad_input", to.work.grad_input);
}

} // namespace

caf::error read(const grpc::ByteBuffer& from, routed_forward_reply& to) {
  const auto wrong = read_forward_reply(from, to);
  return wrong ? bad_reply(wrong) : caf::error{};
}

caf::error read(const grpc::ByteBuffer& from, routed_backward_reply& to) {
  const auto wrong = read_backward_reply(from, to);
  return wrong ? bad_reply(wrong) : caf::error{};
}

caf::error write(const routed_forward_reply& from, grpc::ByteBuffer& to) {
  const auto& work = from.work;
  ForwardResponse message;
  message.set_request_id(work.request_id);
  message.mutable_sampled()->Add(work.sampled.begin(), work.sampled.end());
  message.mutable_logprobs()->Add(work.logprobs.begin(), work.logprobs.end());
  message.set_loss(work.loss);
  message.set_label_count(work.label_count);
  message.set_aux_loss(work.aux_loss);
  for (const auto& one : work.rows) {
    auto& row = *message.add_rows();
    row.set_status(static_cast<RowStatus>(one.status));
    row.set_cache_length(one.cache_length);
    row.set_failed_node(one.failed_node);
  }
  write_reports(from.hops, message);
  write_receipts(from.receipts, message);
  message_writer writer{message.SerializeAsString()};
  if (auto wrong = first_of({write_tensor(work.hidden, reply_hidden, writer),
                             write_tensor(work.logits, reply_logits, writer),
                             write_tensor(work.grad_hidden, reply_grad_hidden, writer)}))
    return wrong;
  to = writer.finish();
  return {};
}

caf::error write(const routed_backward_reply& from, grpc::ByteBuffer& to) {
  BackwardResponse message;
  message.set_request_id(from.work.request_id);
  message.set_inner_steps(from.work.inner_steps);
  write_receipts(from.receipts, message);
  write_reports(from.hops, message);
  message_writer writer{message.SerializeAsString()};
  if (auto wrong = write_tensor(from.work.grad_input, grad_input, writer))
    return wrong;
  to = writer.finish();
  return {};
}

} // namespace neuroshard::rpc

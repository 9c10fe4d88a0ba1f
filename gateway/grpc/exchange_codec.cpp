#include "gateway/grpc/exchange_codec.hpp"

#include "actors/gradient_exchanger/delta_codec.hpp"
#include "actors/gradient_exchanger/exchange_records.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/wire.hpp"
#include "neuroshard/work.pb.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace neuroshard::rpc {

namespace {

constexpr uint32_t part_data_field[] = {4};
constexpr uint32_t reply_data_field[] = {8};
constexpr size_t exchange_text_max = 1'024; ///< of what a refusal says

caf::error take_part(const wire_message& from, uint32_t field, const char* name,
                     std::shared_ptr<const std::string>& to) {
  const auto at = from.bytes.find(field);
  if (at == from.bytes.end())
    return {};
  if (at->second.bytes > delta_part_bytes_max)
    return malformed(name, "A part has at most 64 MiB.");
  auto made = std::make_shared<std::string>();
  made->reserve(at->second.bytes);
  for (const auto& slice : at->second.data)
    made->append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  to = std::move(made);
  return {};
}

void add_part(message_writer& to, uint32_t field, const std::shared_ptr<const std::string>& part) {
  if (part)
    to.add_bytes(field, {reinterpret_cast<const uint8_t*>(part->data()), part->size()}, part);
}

bool take_hash(const std::string& from, std::optional<kernels::digest>& to) {
  if (from.empty())
    return true;
  if (from.size() != kernels::digest{}.size())
    return false;
  std::copy(from.begin(), from.end(), to.emplace().begin());
  return true;
}

caf::error read_exchange_reply(const grpc::ByteBuffer& from, exchange_reply& to) {
  auto parts = take_apart(from, {}, reply_data_field);
  if (!parts)
    return parts.error();
  ExchangeGradientResponse message;
  if (!message.ParseFromString(parts->small))
    return malformed("", "The message is malformed.");
  if (!ExchangeResult_IsValid(message.result()) || message.result() == EXCHANGE_RESULT_UNSPECIFIED)
    return malformed("result", "This result is not known.");
  to.result = static_cast<exchange_result>(message.result());
  if (message.message().size() > exchange_text_max)
    return malformed("message", "The message is too long.");
  to.message = message.message();
  to.current_round = message.current_round();
  if (!take_hash(message.unit_hash(), to.unit_hash))
    return malformed("unit_hash", "A hash has 32 bytes.");
  if (message.has_reply_manifest()) {
    auto manifest = read(message.reply_manifest(), "reply_manifest", exchange_record_bytes_max);
    if (!manifest)
      return manifest.error();
    to.reply_manifest = std::move(*manifest);
  }
  to.reply_part = message.reply_part();
  return take_part(*parts, reply_data_field[0], "reply_data", to.reply_data);
}

} // namespace

caf::error read(const grpc::ByteBuffer& from, exchange_request& to, Header& header) {
  auto parts = take_apart(from, {}, part_data_field);
  if (!parts)
    return parts.error();
  ExchangeGradientRequest message;
  if (!message.ParseFromString(parts->small))
    return malformed("", "The message is malformed.");
  if (!take_hash(message.fetch(), to.fetch))
    return malformed("fetch", "A content hash has 32 bytes.");
  if (message.has_manifest()) {
    auto manifest = read(message.manifest(), "manifest", exchange_record_bytes_max);
    if (!manifest)
      return manifest.error();
    to.manifest = std::move(*manifest);
  }
  if (to.fetch.has_value() == to.manifest.has_value())
    return malformed("manifest", "A request has a manifest, or asks for a contribution.");
  to.part = message.part();
  if (to.part >= delta_parts_max)
    return malformed("part", "A contribution has at most 4096 parts.");
  to.want_reply = message.want_reply();
  header = std::move(*message.mutable_header());
  if (auto wrong = take_part(*parts, part_data_field[0], "part_data", to.part_data))
    return wrong;
  if (to.manifest.has_value() != (to.part_data != nullptr))
    return malformed("part_data", "A part comes with its manifest.");
  return {};
}

caf::error write(const exchange_request& from, const call_header& header, grpc::ByteBuffer& to) {
  ExchangeGradientRequest message;
  message.mutable_header()->set_request_id(header.request_id);
  message.mutable_header()->set_budget_ms(header.budget_ms);
  if (from.manifest)
    write(*from.manifest, *message.mutable_manifest());
  message.set_part(from.part);
  message.set_want_reply(from.want_reply);
  if (from.fetch)
    message.set_fetch(from.fetch->data(), from.fetch->size());
  message_writer writer{message.SerializeAsString()};
  add_part(writer, part_data_field[0], from.part_data);
  to = writer.finish();
  return {};
}

caf::error read(const grpc::ByteBuffer& from, exchange_reply& to) {
  const auto wrong = read_exchange_reply(from, to);
  if (!wrong)
    return {};
  auto what = problem_of(wrong); // the peer's fault, not the caller's
  what.message = "The peer's reply is unusable: " + what.message;
  what.reason = "bad_reply";
  return refuse(errc::unavailable, std::move(what));
}

caf::error write(const exchange_reply& from, const std::string& request_id, grpc::ByteBuffer& to) {
  ExchangeGradientResponse message;
  message.set_request_id(request_id);
  message.set_result(static_cast<ExchangeResult>(from.result));
  message.set_message(from.message);
  message.set_current_round(from.current_round);
  if (from.unit_hash)
    message.set_unit_hash(from.unit_hash->data(), from.unit_hash->size());
  if (from.reply_manifest)
    write(*from.reply_manifest, *message.mutable_reply_manifest());
  message.set_reply_part(from.reply_part);
  message_writer writer{message.SerializeAsString()};
  add_part(writer, reply_data_field[0], from.reply_data);
  to = writer.finish();
  return {};
}

} // namespace neuroshard::rpc

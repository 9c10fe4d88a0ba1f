#include "gateway/grpc/wire.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard::rpc {

namespace {

constexpr size_t tensor_head_max = 1'024;
constexpr uint32_t tensor_data_field = 3;
/// Shorter data are copied: a slice of its own costs more.
constexpr size_t copied_below = 4'096;

enum wire_type : uint32_t { varint = 0, fixed64 = 1, delimited = 2, fixed32 = 5 };

void put_varint(std::string& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    to.push_back(static_cast<char>((value & 0x7f) | 0x80));
  to.push_back(static_cast<char>(value));
}

/// A place in the slices of a message. Every step says whether there was enough.
class wire_cursor {
public:
  wire_cursor(const std::vector<grpc::Slice>& slices, uint64_t bytes) : slices_(slices), left_(bytes) {}

  uint64_t left() const noexcept { return left_; }

  bool get_varint(uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      uint8_t byte = 0;
      if (!one(byte))
        return false;
      value |= static_cast<uint64_t>(byte & 0x7f) << std::min(shift, 63U);
      if ((byte & 0x80) == 0)
        return shift < 63 || byte <= 1;
    }
    return false;
  }

  bool copy(uint64_t bytes, std::string& to) {
    return pieces(bytes, [&](const grpc::Slice& from, size_t first, size_t count) {
      to.append(reinterpret_cast<const char*>(from.begin()) + first, count);
    });
  }
  bool refer(uint64_t bytes, std::vector<grpc::Slice>& to) {
    return pieces(bytes, [&](const grpc::Slice& from, size_t first, size_t count) {
      to.push_back(from.sub(first, first + count));
    });
  }

private:
  bool one(uint8_t& byte) {
    if (left_ == 0)
      return false;
    while (at_ == slices_[slice_].size()) {
      ++slice_;
      at_ = 0;
    }
    byte = slices_[slice_].begin()[at_++];
    --left_;
    return true;
  }

  template <class Each>
  bool pieces(uint64_t bytes, Each each) {
    if (bytes > left_)
      return false;
    left_ -= bytes;
    while (bytes > 0) {
      const auto& from = slices_[slice_];
      const size_t count = static_cast<size_t>(std::min<uint64_t>(bytes, from.size() - at_));
      if (count > 0)
        each(from, at_, count);
      bytes -= count;
      at_ += count;
      if (at_ == from.size() && bytes > 0) {
        ++slice_;
        at_ = 0;
      }
    }
    return true;
  }

  const std::vector<grpc::Slice>& slices_;
  uint64_t left_;
  size_t slice_ = 0, at_ = 0;
};

/// Copies the value of a field, its tag included, while `to` stays within `most`.
bool copy_field(wire_cursor& from, uint64_t tag, size_t most, std::string& to) {
  put_varint(to, tag);
  uint64_t value = 0;
  switch (tag & 7) {
  case varint:
    if (!from.get_varint(value))
      return false;
    put_varint(to, value);
    break;
  case fixed64:
    if (!from.copy(8, to))
      return false;
    break;
  case fixed32:
    if (!from.copy(4, to))
      return false;
    break;
  case delimited:
    if (!from.get_varint(value) || value > most || to.size() + value > most)
      return false;
    put_varint(to, value);
    if (!from.copy(value, to))
      return false;
    break;
  default:
    return false;
  }
  return to.size() <= most;
}

bool is_tag(uint64_t tag) noexcept {
  return tag >> 3 != 0 && tag <= 0xffff'ffffU;
}

bool take_tensor(wire_cursor& from, uint64_t bytes, wire_tensor& to) {
  if (bytes > from.left())
    return false;
  const uint64_t end = from.left() - bytes;
  std::string head;
  bool has_data = false;
  while (from.left() > end) {
    uint64_t tag = 0;
    if (!from.get_varint(tag) || !is_tag(tag))
      return false;
    if (tag == (tensor_data_field << 3 | delimited)) {
      uint64_t length = 0;
      if (std::exchange(has_data, true) || !from.get_varint(length) || from.left() < end ||
          length > from.left() - end)
        return false;
      to.bytes = static_cast<size_t>(length);
      if (!from.refer(length, to.data))
        return false;
    } else if (!copy_field(from, tag, tensor_head_max, head)) {
      return false;
    }
  }
  return from.left() == end && to.head.ParseFromString(head);
}

void let_go(void* owner) {
  delete static_cast<std::shared_ptr<const void>*>(owner);
}

} // namespace

caf::error malformed(const char* field, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = "malformed";
  return refuse(errc::invalid_request, std::move(what));
}

caf::expected<wire_message> take_apart(const grpc::ByteBuffer& from, std::span<const uint32_t> tensor_fields,
                                       std::span<const uint32_t> bytes_fields) {
  std::vector<grpc::Slice> slices;
  if (!from.Valid() || !from.Dump(&slices).ok())
    return malformed("", "The message is malformed.");
  wire_message made;
  wire_cursor at{slices, from.Length()};
  while (at.left() > 0) {
    uint64_t tag = 0;
    if (!at.get_varint(tag) || !is_tag(tag))
      return malformed("", "The message is malformed.");
    const auto field = static_cast<uint32_t>(tag >> 3);
    if (std::find(bytes_fields.begin(), bytes_fields.end(), field) != bytes_fields.end()) {
      uint64_t length = 0;
      const auto [large, alone] = made.bytes.try_emplace(field);
      if (!alone || (tag & 7) != delimited || !at.get_varint(length) || length > at.left() ||
          !at.refer(length, large->second.data))
        return malformed("", "The message is malformed.");
      large->second.bytes = static_cast<size_t>(length);
      continue;
    }
    if (std::find(tensor_fields.begin(), tensor_fields.end(), field) == tensor_fields.end()) {
      if (!copy_field(at, tag, small_bytes_max, made.small))
        return malformed("", "The message is malformed, or too long beside its tensors.");
      continue;
    }
    uint64_t bytes = 0;
    const auto [tensor, first] = made.tensors.try_emplace(field);
    if (!first || (tag & 7) != delimited || !at.get_varint(bytes) || !take_tensor(at, bytes, tensor->second))
      return malformed("", "A tensor of the message is malformed.");
  }
  return made;
}

void message_writer::add_tensor(uint32_t field, const Tensor& head, std::span<const uint8_t> data,
                                std::shared_ptr<const void> owner) {
  std::string inner = head.SerializeAsString();
  put_varint(inner, tensor_data_field << 3 | delimited);
  put_varint(inner, data.size());
  put_varint(open_, uint64_t{field} << 3 | delimited);
  put_varint(open_, inner.size() + data.size());
  open_ += inner;
  add_data(data, std::move(owner));
}

void message_writer::add_bytes(uint32_t field, std::span<const uint8_t> data,
                               std::shared_ptr<const void> owner) {
  put_varint(open_, uint64_t{field} << 3 | delimited);
  put_varint(open_, data.size());
  add_data(data, std::move(owner));
}

void message_writer::add_data(std::span<const uint8_t> data, std::shared_ptr<const void> owner) {
  if (data.size() < copied_below) {
    open_.append(reinterpret_cast<const char*>(data.data()), data.size());
    return;
  }
  close();
  slices_.emplace_back(const_cast<uint8_t*>(data.data()), data.size(), let_go,
                       new std::shared_ptr<const void>(std::move(owner)));
}

void message_writer::close() {
  if (!open_.empty())
    slices_.emplace_back(open_.data(), open_.size());
  open_.clear();
}

grpc::ByteBuffer message_writer::finish() {
  close();
  return {slices_.data(), slices_.size()};
}

} // namespace neuroshard::rpc

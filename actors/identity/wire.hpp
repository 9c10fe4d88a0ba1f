#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

/// The wire format of protobuf for the few small messages that are signed or nested as bytes: their bytes are
/// made and read here, since generated code is seen by gateway/grpc alone. Varints and bytes only.
namespace neuroshard::wire {

/// Bytes of one message at most.
inline constexpr size_t message_bytes_max = 64 * 1024;

/// Fields with their default value (0, false, empty) are left out, as proto3 does.
void put_bytes(std::string& out, uint32_t field, std::string_view bytes);
void put_unsigned(std::string& out, uint32_t field, uint64_t value);
inline void put_int(std::string& out, uint32_t field, int64_t value) {
  put_unsigned(out, field, static_cast<uint64_t>(value));
}

template <size_t N>
std::string_view view_of(const std::array<uint8_t, N>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), N};
}

/// One field as read: a number, or bytes.
struct field {
  uint32_t number = 0;
  bool is_bytes = false;
  uint64_t value = 0;
  std::string_view bytes;
};

/// Hands every field to `each`, which says whether it is in order. Fields of unknown number are passed too,
/// to be skipped. False also for truncated input, other wire types and more than 64 KiB.
bool read_fields(std::string_view in, const std::function<bool(const field&)>& each);

template <size_t N>
bool take_exactly(const field& from, std::array<uint8_t, N>& out) {
  if (!from.is_bytes || from.bytes.size() != N)
    return false;
  std::copy(from.bytes.begin(), from.bytes.end(), out.begin());
  return true;
}

} // namespace neuroshard::wire

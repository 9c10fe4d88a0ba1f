#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>

/// The wire format of protobuf for the few small messages that are signed or nested as bytes: their bytes are
/// made and read here, since generated code is seen by gateway/grpc alone.
namespace neuroshard::wire {

/// Bytes of one message at most, unless the reader says otherwise.
inline constexpr size_t message_bytes_max = 64 * 1024;

/// A number in groups of seven bits, lowest first (LEB128). `take_varint` removes it from the front of `in`;
/// false where it is cut short or beyond 64 bits.
void put_varint(std::string& out, uint64_t value);
bool take_varint(std::string_view& in, uint64_t& out);

/// Fields with their default value (0, false, empty) are left out, as proto3 does.
void put_bytes(std::string& out, uint32_t field, std::string_view bytes);
void put_unsigned(std::string& out, uint32_t field, uint64_t value);
inline void put_int(std::string& out, uint32_t field, int64_t value) {
  put_unsigned(out, field, static_cast<uint64_t>(value));
}

void put_float(std::string& out, uint32_t field, float value);
void put_double(std::string& out, uint32_t field, double value);

template <size_t N>
std::string_view view_of(const std::array<uint8_t, N>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), N};
}

/// One field as read: a number, a fixed number of 4 or 8 bytes, or bytes.
struct field {
  enum class form : uint8_t { number, fixed32, fixed64, bytes };
  uint32_t number = 0;
  form has = form::number;
  uint64_t value = 0; ///< of a number; the bits of a fixed one
  std::string_view bytes;

  bool is_bytes() const noexcept { return has == form::bytes; }
  bool is_number() const noexcept { return has == form::number; }
};

/// Hands every field to `each`, which says whether it is in order. Fields of unknown number are passed too,
/// to be skipped. False also for truncated input, groups and more than `bytes_max` bytes.
bool read_fields(std::string_view in, const std::function<bool(const field&)>& each,
                 size_t bytes_max = message_bytes_max);

template <size_t N>
bool take_exactly(const field& from, std::array<uint8_t, N>& out) {
  if (!from.is_bytes() || from.bytes.size() != N)
    return false;
  std::copy(from.bytes.begin(), from.bytes.end(), out.begin());
  return true;
}

/// False for another form, or a number beyond the type.
template <class Integer>
bool take_number(const field& from, Integer& out) {
  if (!from.is_number() || from.value > static_cast<uint64_t>(std::numeric_limits<Integer>::max()))
    return false;
  out = static_cast<Integer>(from.value);
  return true;
}
bool take_flag(const field& from, bool& out);
bool take_text(const field& from, std::string& out);
bool take_float(const field& from, float& out);
bool take_double(const field& from, double& out);

} // namespace neuroshard::wire

#include "actors/identity/wire.hpp"

#include <bit>

namespace neuroshard::wire {

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

bool take_varint(std::string_view& in, uint64_t& out) {
  out = 0;
  for (int shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(in.front());
    in.remove_prefix(1);
    if (shift == 63 && byte > 1)
      return false;
    out |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80)
      return true;
  }
  return false;
}

namespace {

void put_fixed(std::string& out, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    out.push_back(static_cast<char>(value >> (8 * i)));
}

bool take_fixed(std::string_view& in, size_t bytes, uint64_t& out) {
  if (in.size() < bytes)
    return false;
  out = 0;
  for (size_t i = 0; i < bytes; ++i)
    out |= static_cast<uint64_t>(static_cast<uint8_t>(in[i])) << (8 * i);
  in.remove_prefix(bytes);
  return true;
}

} // namespace

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  if (bytes.empty())
    return;
  put_varint(out, field << 3 | 2);
  put_varint(out, bytes.size());
  out.append(bytes);
}

void put_unsigned(std::string& out, uint32_t field, uint64_t value) {
  if (value == 0)
    return;
  put_varint(out, field << 3);
  put_varint(out, value);
}

void put_float(std::string& out, uint32_t field, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (bits == 0)
    return;
  put_varint(out, field << 3 | 5);
  put_fixed(out, bits, sizeof bits);
}

void put_double(std::string& out, uint32_t field, double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  if (bits == 0)
    return;
  put_varint(out, field << 3 | 1);
  put_fixed(out, bits, sizeof bits);
}

bool take_flag(const field& from, bool& out) {
  out = from.value == 1;
  return from.is_number() && from.value <= 1;
}

bool take_text(const field& from, std::string& out) {
  out = from.bytes;
  return from.is_bytes();
}

bool take_float(const field& from, float& out) {
  out = std::bit_cast<float>(static_cast<uint32_t>(from.value));
  return from.has == field::form::fixed32;
}

bool take_double(const field& from, double& out) {
  out = std::bit_cast<double>(from.value);
  return from.has == field::form::fixed64;
}

bool read_fields(std::string_view in, const std::function<bool(const field&)>& each, size_t bytes_max) {
  if (in.size() > bytes_max)
    return false;
  while (!in.empty()) {
    uint64_t key = 0;
    if (!take_varint(in, key) || (key >> 3) == 0 || (key >> 3) > 0x1fffffff)
      return false;
    field now;
    now.number = static_cast<uint32_t>(key >> 3);
    switch (key & 7) {
    case 0:
      if (!take_varint(in, now.value))
        return false;
      break;
    case 1:
      now.has = field::form::fixed64;
      if (!take_fixed(in, 8, now.value))
        return false;
      break;
    case 5:
      now.has = field::form::fixed32;
      if (!take_fixed(in, 4, now.value))
        return false;
      break;
    case 2: {
      uint64_t size = 0;
      if (!take_varint(in, size) || size > in.size())
        return false;
      now.has = field::form::bytes;
      now.bytes = in.substr(0, size);
      in.remove_prefix(size);
      break;
    }
    default:
      return false;
    }
    if (!each(now))
      return false;
  }
  return true;
}

} // namespace neuroshard::wire

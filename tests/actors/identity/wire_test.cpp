#include "actors/identity/wire.hpp"
#include "tests/support/test.hpp"

#include <limits>
#include <vector>

using namespace neuroshard;

namespace {

std::vector<wire::field> fields_of(std::string_view bytes) {
  std::vector<wire::field> all;
  REQUIRE(wire::read_fields(bytes, [&](const wire::field& one) {
    all.push_back(one);
    return true;
  }));
  return all;
}

bool readable(std::string_view bytes) {
  return wire::read_fields(bytes, [](const wire::field&) { return true; });
}

} // namespace

TEST_CASE("what is written is read back, and default values are left out as proto3 does") {
  std::string out;
  wire::put_unsigned(out, 1, std::numeric_limits<uint64_t>::max());
  wire::put_int(out, 2, -1);
  wire::put_bytes(out, 3, "abc");
  wire::put_float(out, 17, 1.5f);
  wire::put_double(out, 40, -2.25);
  wire::put_unsigned(out, 5, 0);
  wire::put_bytes(out, 6, "");
  wire::put_float(out, 7, 0);
  wire::put_double(out, 8, 0);
  const auto all = fields_of(out);
  REQUIRE(all.size() == 5);
  uint64_t number = 0;
  int64_t small = 0;
  std::string text;
  float single = 0;
  double twice = 0;
  CHECK(wire::take_number(all[0], number));
  CHECK(number == std::numeric_limits<uint64_t>::max());
  CHECK_FALSE(wire::take_number(all[0], small));
  CHECK(static_cast<int64_t>(all[1].value) == -1);
  CHECK(wire::take_text(all[2], text));
  CHECK(text == "abc");
  CHECK(wire::take_float(all[3], single));
  CHECK(single == 1.5f);
  CHECK(wire::take_double(all[4], twice));
  CHECK(twice == -2.25);
  // Bytes as protoc writes them: field 17, type 5, little-endian.
  CHECK(out.find(std::string("\x8d\x01\x00\x00\xc0\x3f", 6)) != std::string::npos);
}

TEST_CASE("a field of another form than expected is not taken") {
  std::string out;
  wire::put_float(out, 1, 1);
  wire::put_unsigned(out, 2, 2);
  wire::put_bytes(out, 3, "x");
  const auto all = fields_of(out);
  uint64_t number = 0;
  bool flag = false;
  std::string text;
  float single = 0;
  double twice = 0;
  CHECK_FALSE(wire::take_number(all[0], number));
  CHECK_FALSE(wire::take_flag(all[0], flag));
  CHECK_FALSE(wire::take_double(all[0], twice));
  CHECK_FALSE(wire::take_flag(all[1], flag)); // 2
  CHECK_FALSE(wire::take_float(all[1], single));
  CHECK_FALSE(wire::take_text(all[1], text));
  CHECK_FALSE(wire::take_number(all[2], number));
}

TEST_CASE("truncated, grouped, over-long and too large input is refused") {
  std::string out;
  wire::put_unsigned(out, 1, 300);
  wire::put_bytes(out, 2, "abcdef");
  wire::put_double(out, 3, 1);
  wire::put_float(out, 4, 1);
  CHECK(readable(out));
  for (size_t n = 1; n < out.size(); ++n)
    if (n != 3 && n != 11 && n != 20) // where a field ends
      CHECK_FALSE(readable(std::string_view(out).substr(0, n)));
  CHECK_FALSE(readable("\x0b"));                                             // a group begins
  CHECK_FALSE(readable(std::string("\x00\x01", 2)));                         // field 0
  CHECK_FALSE(readable("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")); // eleven bytes of one number
  CHECK_FALSE(readable(std::string(wire::message_bytes_max + 2, '\x08')));
  CHECK_FALSE(wire::read_fields(out, [](const wire::field&) { return false; }));
}

TEST_CASE("a reader may allow longer messages, and refuses what is longer than it allows") {
  std::string out;
  wire::put_bytes(out, 1, std::string(wire::message_bytes_max, 'x'));
  CHECK_FALSE(readable(out));
  const auto all = [](const wire::field&) { return true; };
  CHECK(wire::read_fields(out, all, out.size()));
  CHECK_FALSE(wire::read_fields(out, all, out.size() - 1));
}

TEST_CASE("numbers of seven bits a byte are read one after the other") {
  std::string out;
  for (const uint64_t value : {uint64_t{0}, uint64_t{127}, uint64_t{128}, ~uint64_t{0}})
    wire::put_varint(out, value);
  CHECK(out.size() == 1 + 1 + 2 + 10);
  std::string_view rest = out;
  uint64_t value = 0;
  for (const uint64_t wanted : {uint64_t{0}, uint64_t{127}, uint64_t{128}, ~uint64_t{0}}) {
    CHECK(wire::take_varint(rest, value));
    CHECK(value == wanted);
  }
  CHECK(rest.empty());
  CHECK_FALSE(wire::take_varint(rest, value));
  rest = "\x80";
  CHECK_FALSE(wire::take_varint(rest, value));
  rest = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"; // beyond 64 bits
  CHECK_FALSE(wire::take_varint(rest, value));
}

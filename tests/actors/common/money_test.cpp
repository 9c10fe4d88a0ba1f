#include "actors/common/money.hpp"
#include "tests/support/test.hpp"

#include <cstdint>
#include <random>
#include <string>

using namespace neuroshard;

namespace {

using u128 = unsigned __int128;
constexpr neuro_amount most{~static_cast<u128>(0)};

struct read_result {
  amount_error error;
  std::string atto;
  friend bool operator==(const read_result&, const read_result&) = default;
};

read_result read(std::string_view text, amount_text kind = amount_text::number, bool allow_zero = false) {
  neuro_amount value;
  const auto error = parse_amount(text, kind, allow_zero, value);
  return {error, error == amount_error::ok ? to_atto_text(value) : ""};
}

void gives(std::string_view text, const char* atto, amount_text kind = amount_text::number) {
  CAPTURE(std::string(text));
  const auto got = read(text, kind);
  CHECK(got.error == amount_error::ok);
  CHECK(got.atto == atto);
}

void fails(std::string_view text, amount_error error, amount_text kind = amount_text::number) {
  CAPTURE(std::string(text));
  CHECK(read(text, kind).error == error);
}

} // namespace

TEST_CASE("sums and differences are checked") {
  CHECK(checked_add({1}, {2})->atto == 3);
  CHECK(!checked_add(most, {1}));
  CHECK(*checked_add(most, {0}) == most);
  CHECK(checked_sub({3}, {3})->atto == 0);
  CHECK(!checked_sub({2}, {3}));
  CHECK(!checked_mul(most, 2));
  CHECK(*checked_mul(most, 1) == most);
  CHECK(checked_mul(most, 0)->atto == 0);
  CHECK(checked_mul({static_cast<u128>(1) << 64}, UINT64_MAX)->atto == (static_cast<u128>(UINT64_MAX) << 64));
}

TEST_CASE("a ratio keeps the whole product and rounds as asked") {
  CHECK(mul_ratio({10}, 1, 3)->atto == 3);
  CHECK(mul_ratio_up({10}, 1, 3)->atto == 4);
  CHECK(mul_ratio_up({9}, 1, 3)->atto == 3);
  CHECK(*mul_ratio(most, UINT64_MAX, UINT64_MAX) == most);
  CHECK(!mul_ratio(most, 3, 2));
  CHECK(!mul_ratio({1}, 1, 0));
  CHECK(!mul_ratio_up({1}, 1, 0));
  CHECK(mul_ratio(most, 10, 10000)->atto == most.atto / 1000);
  CHECK(mul_ratio({0}, UINT64_MAX, 1)->atto == 0);
}

TEST_CASE("a ratio agrees with itself put together from small parts") {
  std::mt19937_64 random(20240607);
  for (int i = 0; i < 20000; ++i) {
    const u128 a = (static_cast<u128>(random()) << 64 | random()) >> (random() % 128);
    const uint64_t num = random() >> (random() % 64), den = (random() >> (random() % 64)) | 1;
    const auto down = mul_ratio({a}, num, den), up = mul_ratio_up({a}, num, den);
    // floor(a n / d) = (a / d) n + floor((a mod d) n / d); the last part has 64 bits, so it is exact in 128.
    const u128 part = (a % den) * num / den;
    const u128 exact_rest = (a % den) * num % den;
    const auto whole = checked_mul({a / den}, num);
    const auto sum = whole ? checked_add(*whole, {part}) : std::nullopt;
    REQUIRE(down == sum);
    if (down && exact_rest != 0)
      REQUIRE(up == checked_add(*down, {1}));
    if (down && exact_rest == 0)
      REQUIRE(up == down);
  }
}

TEST_CASE("amounts print as plain decimals") {
  CHECK(to_decimal({0}) == "0.0");
  CHECK(to_decimal({1}) == "0.000000000000000001");
  CHECK(to_decimal({100 * atto_per_neuro}) == "100.0");
  CHECK(to_decimal({16'800'000'000'000'000ULL}) == "0.0168");
  CHECK(to_decimal(most) == "340282366920938463463.374607431768211455");
  CHECK(to_atto_text(most) == "340282366920938463463374607431768211455");
}

TEST_CASE("atto texts read back") {
  CHECK(*from_atto_text("340282366920938463463374607431768211455") == most);
  CHECK(!from_atto_text("340282366920938463463374607431768211456"));
  CHECK(!from_atto_text("3402823669209384634633746074317682114550"));
  CHECK(!from_atto_text(""));
  CHECK(!from_atto_text("-1"));
  CHECK(!from_atto_text("1.0"));
  CHECK(!from_atto_text("01"));
  CHECK(from_atto_text("0")->atto == 0);
}

TEST_CASE("numbers and strings are read by their text") {
  gives("0.1", "100000000000000000");
  gives("1", "1000000000000000000");
  gives("250.25", "250250000000000000000");
  gives("1e-05", "10000000000000");
  gives("1E-5", "10000000000000");
  gives("1e+16", "10000000000000000000000000000000000");
  gives("1e-18", "1");
  gives("0.000000000000000001", "1");
  gives("340282366920938463463.374607431768211455", "340282366920938463463374607431768211455");
  gives("0.1", "100000000000000000", amount_text::string);
  gives("1e-5", "10000000000000", amount_text::string);
  gives("0.00000000000000000000000000000000000001e38", "1000000000000000000");
  gives("1.000000000000000000", "1000000000000000000", amount_text::string);
}

TEST_CASE("a number with more than 18 fractional digits is rounded half-even, a string is refused") {
  gives("0.0000000000000000005000000001", "1");
  gives("0.0000000000000000015", "2");
  gives("0.0000000000000000025", "2");
  gives("0.0000000000000000025000001", "3");
  gives("0.00000000000000000149", "1");
  gives("1.9999999999999999999", "2000000000000000000");
  fails("0.0000000000000000005", amount_error::zero);
  fails("4e-19", amount_error::zero);
  gives("6e-19", "1");
  fails("9e-20", amount_error::zero);
  fails("0.0000000000000000015", amount_error::too_precise, amount_text::string);
  fails("1.0000000000000000000", amount_error::too_precise, amount_text::string);
  fails("1e-19", amount_error::too_precise, amount_text::string);
  fails("340282366920938463463.3746074317682114555", amount_error::overflow);
  gives("340282366920938463463.3746074317682114549", "340282366920938463463374607431768211455");
}

TEST_CASE("what is no amount is refused with its reason") {
  for (const char* bad :
       {"",   "-",  "+1",  ".5", "5.",   "1e",    "1e+",   "e5",  "0x10",  "NaN",         "Infinity",
        "1 ", " 1", "1,5", "01", "00.5", "1.2.3", "1e5.0", "--1", "1e5e5", "\xef\xbc\x91"})
    for (const auto kind : {amount_text::number, amount_text::string})
      fails(bad, amount_error::malformed, kind);
  fails(std::string_view("1\0", 2), amount_error::malformed);
  fails("-1", amount_error::negative);
  fails("-0", amount_error::negative);
  fails("-0.0e5", amount_error::negative, amount_text::string);
  fails("0", amount_error::zero);
  fails("0.000", amount_error::zero, amount_text::string);
  fails("0e40", amount_error::zero);
  CHECK(read("0", amount_text::number, true) == read_result{amount_error::ok, "0"});
  fails("1e41", amount_error::exponent);
  fails("1e-41", amount_error::exponent);
  fails("1e400", amount_error::exponent);
  fails("1e99999999999999999999999999", amount_error::exponent);
  fails("1e40", amount_error::overflow);
  fails("1e21", amount_error::overflow);
  fails("340282366920938463463.374607431768211456", amount_error::overflow);
  fails(std::string(65, '1'), amount_error::too_long);
  fails(std::string(64, '1'), amount_error::overflow);
  fails("1" + std::string(1000000, '0'), amount_error::too_long);
}

TEST_CASE("what is printed reads back as itself") {
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    const neuro_amount a{((static_cast<u128>(random()) << 64 | random()) >> (random() % 127)) | 1};
    neuro_amount back;
    REQUIRE(parse_amount(to_decimal(a), amount_text::string, false, back) == amount_error::ok);
    REQUIRE(back == a);
    REQUIRE(*from_atto_text(to_atto_text(a)) == a);
  }
}

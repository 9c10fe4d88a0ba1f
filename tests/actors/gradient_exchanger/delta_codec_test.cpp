#include "actors/gradient_exchanger/delta_codec.hpp"

#include "actors/gradient_exchanger/error_feedback.hpp"
#include "actors/gradient_exchanger/quantize.hpp"
#include "actors/identity/wire.hpp"
#include "tests/actors/gradient_exchanger/exchange_fixture.hpp"

#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <limits>

using namespace neuroshard;
using namespace neuroshard::exchange_tests;

namespace {

constexpr delta_encoding all_encodings[] = {delta_encoding::f32, delta_encoding::dense_i8,
                                            delta_encoding::topk_i8, delta_encoding::dense_i4};

delta_options small_parts(delta_encoding encoding) {
  return {encoding, 0.1, delta_part_bytes_min};
}

float scale_in(const std::string& scales, size_t block = 0) {
  float scale = 0;
  std::memcpy(&scale, scales.data() + block * 4, 4);
  return scale;
}

/// Half of the scale of the block that an element lies in, blocks counted from the slice's begin.
double half_scale(std::span<const float> values, size_t at, size_t block, double limit) {
  const size_t begin = at / block * block;
  float most = 0;
  for (size_t i = begin; i < std::min(values.size(), begin + block); ++i)
    most = std::max(most, std::fabs(values[i]));
  return most / limit / 2;
}

/// A DeltaTensor field by field, so that tests can lie.
struct raw_slice {
  std::string name = "w";
  std::string dims = "\x80\x10"; // 2048
  uint64_t encoding = 2;
  std::string indices;
  std::string values = std::string(2'048, '\1');
  uint64_t block_size = 256;
  std::string scales = std::string(32, '\0');
  uint64_t codec = 1;
  uint64_t first = 0;
  uint64_t count = 2'048;

  std::string bytes() const {
    std::string out;
    wire::put_bytes(out, 1, name);
    wire::put_bytes(out, 2, dims);
    wire::put_unsigned(out, 3, encoding);
    wire::put_bytes(out, 4, indices);
    wire::put_bytes(out, 5, values);
    wire::put_unsigned(out, 6, block_size);
    wire::put_bytes(out, 7, scales);
    wire::put_unsigned(out, 8, codec);
    wire::put_unsigned(out, 9, first);
    wire::put_unsigned(out, 10, count);
    return out;
  }
};

std::shared_ptr<const unit_layout> one_tensor() {
  return std::make_shared<unit_layout>(unit_layout{{{"w", {2'048}}}});
}

delta_part part_of(const std::vector<raw_slice>& slices) {
  std::string out;
  for (const auto& slice : slices)
    wire::put_bytes(out, 1, slice.bytes());
  return std::make_shared<const std::string>(std::move(out));
}

/// What opening and reading say: empty, or the reason.
std::string said_of(const std::vector<raw_slice>& slices,
                    delta_encoding encoding = delta_encoding::dense_i8) {
  auto opened = delta_reader::open(one_tensor(), encoding, {part_of(slices)});
  if (!opened)
    return reason_of(opened.error());
  std::vector<float> out(2'048);
  const auto wrong = opened->read(0, out);
  return wrong ? reason_of(wrong) + " when read" : "";
}

std::string zstd(const std::string& raw) {
  std::string out(ZSTD_compressBound(raw.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), raw.data(), raw.size(), 3));
  return out;
}

} // namespace

TEST_CASE("blocks are quantized to the worked values") {
  const std::vector<float> x{0.0127f, -0.0254f, 0.00015f, 0.0251f, 0.0001f, -0.00025f};
  std::string values;
  std::string scales;
  append_i8(x, values, scales);
  // worked_values.py, limit 127
  CHECK(scale_in(scales) == 0.000199999995f);
  CHECK(std::vector<int8_t>(values.begin(), values.end()) == std::vector<int8_t>{64, -127, 1, 126, 0, -1});
  values.clear();
  scales.clear();
  append_i4(x, values, scales);
  // limit 7: q 4 (of 3.5: half to even), -7, 0, 7, 0, 0; low nibble first
  CHECK(scale_in(scales) == 0.00362857128f);
  CHECK(values == std::string("\x94\x70\x00", 3));
}

TEST_CASE("halves are rounded to even and a block of zeros has scale 0") {
  std::vector<float> x(257, 0.0f);
  x[256] = 0;
  const float halves[] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f};
  std::copy(std::begin(halves), std::end(halves), x.begin());
  std::string values;
  std::string scales;
  append_i8(x, values, scales);
  CHECK(scale_in(scales) == 1.0f);
  CHECK(scale_in(scales, 1) == 0.0f);
  const int8_t wanted[] = {127, 0, 2, 2, 0, -2, -126};
  CHECK(std::equal(std::begin(wanted), std::end(wanted), values.begin(),
                   [](int8_t a, char b) { return a == static_cast<int8_t>(b); }));
}

TEST_CASE("numbers too small for a normal scale stay within the clamp") {
  const float least = std::numeric_limits<float>::denorm_min();
  for (const float most : {least, 60 * least, 64 * least, 190 * least}) {
    const std::vector<float> x{most, -most, least};
    std::string values;
    std::string scales;
    append_i8(x, values, scales);
    for (const char value : values)
      CHECK(std::abs(static_cast<int8_t>(value)) <= 127);
  }
}

TEST_CASE("a slice has the bytes the wire format says") {
  const std::vector<float> x{1.0f, -2.0f};
  const auto bytes = encode_slice({"w", {2}}, delta_encoding::f32, 0, x, {});
  // name, packed shape, encoding 1, values, codec 1, count 2; zero fields are left out.
  CHECK(bytes ==
        std::string("\x0a\x01w\x12\x01\x02\x18\x01\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\xc0\x40\x01\x50\x02",
                    22));
}

TEST_CASE("contributions come back within half a scale, whatever the encoding and the size of parts") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  const auto layout = small_layer();
  draws from(1);
  const auto values = random_values(*layout, from, 0.01);
  for (const auto encoding : all_encodings)
    for (const size_t bytes_max : {delta_part_bytes_min, size_t{20'000}, delta_part_bytes_max}) {
      const auto parts = encoded(*layout, {encoding, 0.1, bytes_max}, values);
      for (const auto& part : parts)
        CHECK(part->size() <= bytes_max);
      auto opened = delta_reader::open(layout, encoding, parts, bytes_max);
      REQUIRE(static_cast<bool>(opened));
      const auto read = all_of(*layout, *opened);
      for (size_t tensor = 0; tensor < values.size(); ++tensor) {
        const auto& was = values[tensor];
        const auto sent_as = encoding_of(encoding, was.size());
        if (sent_as == delta_encoding::f32) {
          CHECK(read[tensor] == was);
          continue;
        }
        bool within = true;
        size_t sent = 0;
        for (size_t i = 0; i < was.size(); ++i) {
          sent += read[tensor][i] != 0;
          double bound = 0;
          if (sent_as == delta_encoding::dense_i8)
            bound = half_scale(was, i, 256, 127);
          else if (sent_as == delta_encoding::dense_i4)
            bound = half_scale(was, i, 64, 7);
          else if (read[tensor][i] != 0)
            bound = half_scale(was, 0, was.size(), 127);
          else
            bound = std::fabs(was[i]);
          within = within && std::fabs(static_cast<double>(read[tensor][i]) - was[i]) <= bound * (1 + 1e-5);
        }
        CHECK(within);
        if (sent_as == delta_encoding::topk_i8)
          CHECK(sent == static_cast<size_t>(0.1 * static_cast<double>(was.size())));
      }
    }
}

TEST_CASE("the same values give the same bytes") {
  const auto layout = small_layer();
  draws from(2);
  const auto values = random_values(*layout, from, 1.0);
  const auto a = encoded(*layout, small_parts(delta_encoding::topk_i8), values);
  const auto b = encoded(*layout, small_parts(delta_encoding::topk_i8), values);
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i)
    CHECK(*a[i] == *b[i]);
}

TEST_CASE("top-k takes the greatest magnitudes and of equal ones the lower index") {
  const std::vector<float> x{1, -3, 2, 3, -2, 2, 0, 0, 0, 0};
  CHECK(largest_magnitudes(x, 0.1) == std::vector<uint64_t>{1});
  CHECK(largest_magnitudes(x, 0.2) == std::vector<uint64_t>{1, 3});
  CHECK(largest_magnitudes(x, 0.4) == std::vector<uint64_t>{1, 2, 3, 4});
  CHECK(largest_magnitudes(x, 0.01) == std::vector<uint64_t>{1});
  CHECK(largest_magnitudes(x, 1.0).size() == 10);
  CHECK(largest_magnitudes(std::vector<float>(4, 0.0f), 0.5) == std::vector<uint64_t>{0, 1});
}

TEST_CASE("values that repeat are compressed, and noise is not made longer") {
  const auto layout = one_tensor();
  const auto flat = encoded(*layout, {}, {std::vector<float>(2'048, 0.5f)});
  CHECK(flat[0]->size() < 200);
  auto opened = delta_reader::open(layout, delta_encoding::dense_i8, flat);
  REQUIRE(static_cast<bool>(opened));
  CHECK(all_of(*layout, *opened)[0][2'047] == doctest::Approx(0.5));
  draws from(3);
  std::vector<float> noise(2'048);
  for (auto& value : noise)
    value = static_cast<float>(from.unit() - 0.5);
  CHECK(encoded(*layout, {}, {noise})[0]->size() < 2'048 + 32 + 64);
}

TEST_CASE("values that are not finite, and options out of bounds, are not encoded") {
  const auto layout = one_tensor();
  const auto tried = [&](const delta_options& how, float value) {
    const auto made = encode_delta(*layout, how, [&](size_t, std::span<float> out) {
      std::fill(out.begin(), out.end(), value);
      return caf::error{};
    });
    return made ? std::string() : reason_of(made.error());
  };
  CHECK(tried({}, 1.0f).empty());
  CHECK(tried({}, std::numeric_limits<float>::quiet_NaN()) == "not_finite");
  CHECK(tried({}, -std::numeric_limits<float>::infinity()) == "not_finite");
  CHECK(tried({delta_encoding::topk_i8, 0.0}, 1.0f) == "bad_options");
  CHECK(tried({delta_encoding::topk_i8, 1.5}, 1.0f) == "bad_options");
  CHECK(tried({delta_encoding::dense_i8, 0.1, 100}, 1.0f) == "bad_options");
  CHECK(tried({delta_encoding::dense_i8, 0.1, delta_part_bytes_max + 1}, 1.0f) == "bad_options");
}

TEST_CASE("slices that lie are refused") {
  CHECK(said_of({raw_slice{}}).empty());
  const auto with = [](auto change) {
    raw_slice slice;
    change(slice);
    return said_of({slice});
  };
  CHECK(with([](raw_slice& s) { s.name = "v"; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.name.clear(); }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.dims = "\x80\x10\x01"; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.dims.clear(); }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.dims = std::string(100, '\1'); }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.encoding = 4; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.encoding = 9; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.codec = 0; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.codec = 3; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.codec = 2; }) == "bad_shape"); // not a zstd frame
  CHECK(with([](raw_slice& s) { s.block_size = 64; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.count = 2'047; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.count = 0; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.count = ~uint64_t{0}; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.first = 256; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.first = ~uint64_t{0} - 255; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.values.pop_back(); }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.scales += "1234"; }) == "bad_shape");
  CHECK(with([](raw_slice& s) { s.indices = "\1"; }) == "bad_shape");
  CHECK(said_of({}) == "bad_shape");
  CHECK(said_of({raw_slice{}, raw_slice{}}) == "bad_shape");
}

TEST_CASE("slices are ascending and without a gap") {
  raw_slice low;
  low.count = 1'024;
  low.values.resize(1'024);
  low.scales.resize(16);
  raw_slice high = low;
  high.first = 1'024;
  CHECK(said_of({low, high}).empty());
  CHECK(said_of({high, low}) == "bad_shape");
  CHECK(said_of({low}) == "bad_shape");
  CHECK(said_of({low, low}) == "bad_shape");
  CHECK(said_of({low, high, high}) == "bad_shape");
  raw_slice odd = low;
  odd.count = 1'000;
  odd.values.resize(1'000);
  raw_slice rest = low;
  rest.first = 1'000; // not a multiple of 256
  rest.count = 1'048;
  rest.values.resize(1'048);
  rest.scales.resize(20);
  CHECK(said_of({odd, rest}) == "bad_shape");
}

TEST_CASE("a compressed field is one whole frame of exactly the length that is needed") {
  raw_slice slice;
  slice.codec = 2;
  slice.values = zstd(std::string(2'048, '\1'));
  CHECK(said_of({slice}).empty());
  slice.values = zstd(std::string(2'049, '\1'));
  CHECK(said_of({slice}) == "bad_shape");
  slice.values = zstd(std::string(size_t{64} << 20, '\0')); // some KiB that would become 64 MiB
  CHECK(said_of({slice}) == "bad_shape");
  slice.values = zstd(std::string(2'048, '\1')) + zstd("more");
  CHECK(said_of({slice}) == "bad_shape");
  slice.values = zstd(std::string(2'048, '\1'));
  slice.values.pop_back();
  CHECK(said_of({slice}) == "bad_shape");
  // A frame that does not tell its length.
  std::string streamed(256, '\0');
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  const std::string raw(2'048, '\1');
  streamed.resize(ZSTD_compress2(context, streamed.data(), streamed.size(), raw.data(), raw.size()));
  ZSTD_freeCCtx(context);
  slice.values = streamed;
  CHECK(said_of({slice}) == "bad_shape");
}

TEST_CASE("indices of top-k that do not ascend within the slice are refused") {
  raw_slice slice;
  slice.encoding = 3;
  slice.values = std::string("\1\2\3", 3);
  slice.scales = std::string("\0\0\x80\x3f", 4);
  const auto with = [&](const std::string& indices) {
    slice.indices = indices;
    return said_of({slice}, delta_encoding::topk_i8);
  };
  CHECK(with(std::string("\0\1\1", 3)).empty());
  CHECK(with(std::string("\0\1\xfd\x0f", 4)).empty());                  // 0, 1, 2046
  CHECK(with(std::string("\0\1\xfe\x0f", 4)).empty());                  // 2047, the last
  CHECK(with(std::string("\0\1\xff\x0f", 4)) == "bad_shape when read"); // 2048
  CHECK(with(std::string("\1\0\1", 3)) == "bad_shape when read");       // 1 twice
  CHECK(with(std::string("\1\1\1\1", 4)) == "bad_shape when read");     // one too many
  CHECK(with(std::string("\1\1\x80", 3)) == "bad_shape when read");     // cut short
  CHECK(with(std::string("\1\1", 2)) == "bad_shape");                   // one too few
  CHECK(with(std::string("\1\1") + std::string(9, '\xff') + "\1") == "bad_shape when read");
}

TEST_CASE("random changes of valid parts never crash, and what is read stays in its bounds") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  const auto layout = small_layer();
  draws from(4);
  const auto values = random_values(*layout, from, 0.01);
  size_t taken = 0;
  for (int round = 0; round < 4'000; ++round) {
    const auto encoding = all_encodings[round % 4];
    static std::vector<delta_part> valid[4];
    if (valid[round % 4].empty())
      valid[round % 4] = encoded(*layout, small_parts(encoding), values);
    auto parts = valid[round % 4];
    const auto at = from.below(parts.size());
    std::string bytes = *parts[at];
    switch (from.below(5)) {
    case 0:
      bytes.resize(from.below(bytes.size()));
      break;
    case 1:
      bytes.insert(from.below(bytes.size()), std::string(1 + from.below(20), '\xff'));
      break;
    case 2:
      bytes.erase(from.below(bytes.size()), 1 + from.below(20));
      break;
    case 3:
      std::swap(parts[at], parts[from.below(parts.size())]);
      bytes = *parts[at];
      break;
    default:
      break;
    }
    for (auto changes = from.below(4); changes > 0 && !bytes.empty(); --changes) {
      const auto near = from.below(2) == 0 ? std::min<uint64_t>(bytes.size(), 96) : bytes.size();
      bytes[from.below(near)] = static_cast<char>(from.below(256));
    }
    parts[at] = std::make_shared<const std::string>(std::move(bytes));
    auto opened = delta_reader::open(layout, encoding, parts, delta_part_bytes_min);
    if (!opened) {
      CHECK(reason_of(opened.error()) == "bad_shape");
      continue;
    }
    ++taken;
    for (size_t tensor = 0; tensor < layout->tensors.size(); ++tensor) {
      std::vector<float> out(layout->tensors[tensor].elements());
      if (const auto wrong = opened->read(tensor, out))
        CHECK(reason_of(wrong) == "bad_shape");
    }
  }
  CHECK(taken > 0);
  CHECK(taken < 4'000);
}

TEST_CASE("the residual is what was not sent, and the sum of what is sent follows the sum of deltas") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  const auto layout = small_layer();
  for (const auto encoding : {delta_encoding::dense_i4, delta_encoding::topk_i8}) {
    draws from(5);
    const auto delta = random_values(*layout, from, 0.01);
    error_feedback feedback;
    CHECK(feedback.zero());
    auto sent_sum = unit_values{};
    for (const auto& tensor : layout->tensors)
      sent_sum.emplace_back(tensor.elements());
    constexpr int rounds = 20;
    for (int round = 0; round < rounds; ++round) {
      auto parts = encode_delta(*layout, small_parts(encoding), [&](size_t tensor, std::span<float> out) {
        std::copy(delta[tensor].begin(), delta[tensor].end(), out.begin());
        feedback.add_to(tensor, out);
        return caf::error{};
      });
      REQUIRE(static_cast<bool>(parts));
      auto sent = delta_reader::open(layout, encoding, *parts);
      REQUIRE(static_cast<bool>(sent));
      const auto values = all_of(*layout, *sent);
      for (size_t tensor = 0; tensor < values.size(); ++tensor)
        for (size_t i = 0; i < values[tensor].size(); ++i)
          sent_sum[tensor][i] += values[tensor][i];
      REQUIRE_FALSE(static_cast<bool>(feedback.settle(*layout, held_values(delta), *sent)));
    }
    // sum of sent = rounds x delta - r
    bool follows = true;
    for (size_t tensor = 0; tensor < delta.size(); ++tensor)
      for (size_t i = 0; i < delta[tensor].size(); ++i)
        follows = follows && std::fabs(sent_sum[tensor][i] + feedback.residual()[tensor][i] -
                                       rounds * delta[tensor][i]) < 1e-5;
    CHECK(follows);
    // What was sent exactly leaves nothing.
    CHECK(*std::max_element(feedback.residual()[1].begin(), feedback.residual()[1].end()) == 0.0f);
    feedback.clear();
    CHECK(feedback.zero());
  }
}

#include "tests/kernels/op_cases.hpp"

#include "kernels/core/philox.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace neuroshard::kernels::testing {

double numbers::uniform(double low, double high) {
  return low + (high - low) * static_cast<double>(philox_u64(seed_, drawn_++) >> 11) * 0x1p-53;
}

int64_t numbers::below(int64_t n) {
  return static_cast<int64_t>(philox_below(seed_, drawn_++, 0, static_cast<uint64_t>(n)));
}

std::vector<double> numbers::many(int64_t count, double low, double high) {
  std::vector<double> drawn(static_cast<size_t>(count));
  for (double& value : drawn)
    value = uniform(low, high);
  return drawn;
}

uint64_t test_seed() {
  const char* text = std::getenv("NEUROSHARD_TEST_SEED");
  return text == nullptr ? 20240117 : std::strtoull(text, nullptr, 10);
}

int64_t operand::elements() const {
  int64_t n = 1;
  for (const int64_t dim : shape)
    n *= dim;
  return n;
}

const char* name_of(dtype type) {
  return type == dtype::bf16 ? "bf16" : "f32";
}

double rounded(double value, dtype type) {
  if (type == dtype::f32)
    return static_cast<float>(value);
  return type == dtype::bf16 ? to_f32(to_bf16(static_cast<float>(value))) : value;
}

std::vector<double> rounded(std::vector<double> many, dtype type) {
  for (double& value : many)
    value = rounded(value, type);
  return many;
}

operand input(std::string name, dtype type, std::vector<int64_t> shape, std::vector<double> v, int64_t gap) {
  return {std::move(name), type, std::move(shape), role::input, rounded(std::move(v), type), 0, gap, -1};
}

operand output(std::string name, dtype type, std::vector<int64_t> shape, double tolerance, int64_t gap) {
  return {std::move(name), type, std::move(shape), role::output, {}, tolerance, gap, -1};
}

operand accumulated(std::string name, dtype type, std::vector<int64_t> shape, std::vector<double> v,
                    double tolerance, int64_t gap) {
  return {std::move(name),
          type,
          std::move(shape),
          role::accumulated,
          rounded(std::move(v), type),
          tolerance,
          gap,
          -1};
}

namespace {

constexpr uint8_t poison = 0xff; ///< NaN in every float type, -1 in the others

void encode(double value, dtype type, uint8_t* to) {
  const auto put = [&](auto typed) { std::memcpy(to, &typed, sizeof typed); };
  switch (type) {
  case dtype::f32:
    return put(static_cast<float>(value));
  case dtype::bf16:
    return put(to_bf16(static_cast<float>(value)).bits);
  case dtype::i32:
    return put(static_cast<int32_t>(value));
  default:
    return put(value);
  }
}

double decode(const uint8_t* from, dtype type) {
  const auto get = [&](auto typed) {
    std::memcpy(&typed, from, sizeof typed);
    return typed;
  };
  switch (type) {
  case dtype::f32:
    return get(float{});
  case dtype::bf16:
    return to_f32(bf16{get(uint16_t{})});
  case dtype::i32:
    return get(int32_t{});
  default:
    return get(double{});
  }
}

/// Where the elements of an operand lie: rows of the outermost dimension with a gap before the first and
/// after each.
struct layout {
  int64_t rows, width, gap;
  size_t size;

  explicit layout(const operand& o) : rows(o.shape.front()), width(1), gap(o.gap), size(size_of(o.type)) {
    for (size_t i = 1; i < o.shape.size(); ++i)
      width *= o.shape[i];
  }
  size_t bytes() const { return static_cast<size_t>(gap + rows * (width + gap)) * size; }
  size_t at(int64_t row, int64_t column) const {
    return static_cast<size_t>(gap + row * (width + gap) + column) * size;
  }
};

tensor view(const operand& o, void* memory) {
  const layout where(o);
  tensor t;
  t.data = static_cast<uint8_t*>(memory) + static_cast<size_t>(where.gap) * where.size;
  t.type = o.type;
  t.rank = static_cast<int>(o.shape.size());
  int64_t step = 1;
  for (size_t i = o.shape.size(); i-- > 0; step *= o.shape[i]) {
    t.shape[i] = o.shape[i];
    t.stride[i] = i == 0 ? where.width + where.gap : step;
  }
  // A rank-1 operand is one row: it has no gaps between its elements.
  if (o.shape.size() == 1)
    t.stride[0] = 1;
  return t;
}

std::vector<uint8_t> image(const operand& o) {
  const layout where(o);
  std::vector<uint8_t> bytes(where.bytes(), poison);
  if (o.is != role::output)
    for (int64_t r = 0; r < where.rows; ++r)
      for (int64_t c = 0; c < where.width; ++c)
        encode(o.values[static_cast<size_t>(r * where.width + c)], o.type, bytes.data() + where.at(r, c));
  return bytes;
}

bool gaps_are_poison(const operand& o, std::vector<uint8_t> bytes) {
  const layout where(o);
  for (int64_t r = 0; r < where.rows; ++r)
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(where.at(r, 0)),
                static_cast<size_t>(where.width) * where.size, poison);
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == poison; });
}

} // namespace

tensor call::scratch(uint64_t bytes) {
  if (bytes == 0)
    return {};
  auto memory = on.on()->alloc(bytes);
  if (!memory.ok() || !on.fill((*memory)->address, poison, bytes).ok())
    return {};
  kept.push_back(*memory);
  return make_tensor((*memory)->address, dtype::i8, {static_cast<int64_t>(bytes)});
}

result<tensor> call::prepared(const tensor& weight, dtype act, weight_use use) {
  const uint64_t bytes = ops().prepared_bytes(device(), weight.shape[0], weight.shape[1], act, use);
  const tensor made = scratch(bytes);
  NEUROSHARD_TRY(ops().prepare_weight(on.impl(), {weight, act, use, made}));
  return made;
}

outcome run(const device_ptr& on, const op_case& one) {
  outcome out;
  auto opened = queue::open(on);
  if (!opened.ok()) {
    out.done = opened.status();
    return out;
  }
  queue& q = **opened;
  call c{q, {}, {}};
  for (const operand& o : one.operands) {
    if (o.alias_of >= 0) {
      c.operands.push_back(c.operands[static_cast<size_t>(o.alias_of)]);
      c.kept.push_back(c.kept[static_cast<size_t>(o.alias_of)]);
      continue;
    }
    const auto bytes = image(o);
    auto memory = on->alloc(bytes.size());
    if (!memory.ok() || !q.copy((*memory)->address, bytes.data(), bytes.size()).ok() || !q.wait().ok()) {
      out.done = status(code::internal, "the operands could not be placed");
      return out;
    }
    c.operands.push_back(view(o, (*memory)->address));
    c.kept.push_back(*memory);
  }
  out.done = one.run(c);
  if (out.done.ok())
    out.done = q.wait();
  if (!out.done.ok())
    return out;
  for (size_t i = 0; i < one.operands.size(); ++i) {
    const operand& o = one.operands[i];
    const layout where(o);
    std::vector<uint8_t> bytes(where.bytes());
    if (!q.copy(bytes.data(), c.kept[i]->address, bytes.size()).ok() || !q.wait().ok())
      out.done = status(code::internal, "the results could not be read");
    auto& decoded = out.read.emplace_back();
    for (int64_t r = 0; r < where.rows; ++r)
      for (int64_t column = 0; column < where.width; ++column)
        decoded.push_back(decode(bytes.data() + where.at(r, column), o.type));
    out.gaps_intact = out.gaps_intact && gaps_are_poison(o, bytes);
    out.raw.push_back(std::move(bytes));
  }
  return out;
}

values expected(const op_case& one) {
  values v;
  for (const operand& o : one.operands) {
    v.push_back(o.values);
    v.back().resize(static_cast<size_t>(o.elements()), std::numeric_limits<double>::quiet_NaN());
  }
  one.oracle(v);
  return v;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  double apart = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    if (std::isnan(a[i]) != std::isnan(b[i]))
      return std::numeric_limits<double>::quiet_NaN();
    if (std::isnan(b[i]) || a[i] == b[i]) // equal infinities too
      continue;
    apart = std::max(apart, std::abs(a[i] - b[i]));
  }
  for (const double value : b)
    if (std::isfinite(value))
      largest = std::max(largest, std::abs(value));
  return largest > 0 ? apart / largest : apart;
}

std::vector<double> numeric_gradient(const std::function<std::vector<double>(const std::vector<double>&)>& f,
                                     std::vector<double> x, const std::vector<double>& upstream) {
  const auto loss = [&] {
    const auto out = f(x);
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i)
      sum += upstream[i] * out[i];
    return sum;
  };
  constexpr double step = 1e-5;
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double here = x[i];
    x[i] = here + step;
    const double above = loss();
    x[i] = here - step;
    const double below = loss();
    x[i] = here;
    gradient[i] = (above - below) / (2 * step);
  }
  return gradient;
}

std::vector<op_case> all_cases(uint64_t seed) {
  std::vector<op_case> cases;
  add_linear_cases(cases, seed);
  add_rowwise_cases(cases, seed + 1);
  add_norm_cases(cases, seed + 2);
  add_attention_cases(cases, seed + 3);
  add_paged_attention_cases(cases, seed + 4);
  add_loss_cases(cases, seed + 5);
  add_optimizer_cases(cases, seed + 6);
  return cases;
}

} // namespace neuroshard::kernels::testing

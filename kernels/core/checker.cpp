#include "kernels/core/checker.hpp"

#include <algorithm>
#include <cstddef>

namespace neuroshard::kernels {

namespace {

constexpr int64_t extent_max =
    int64_t{1} << 46; ///< elements; more than any machine holds, and safe to multiply by a size

std::string dims_text(const int64_t* dims, size_t count) {
  std::string text = "[";
  for (size_t i = 0; i < count; ++i)
    text += (i == 0 ? "" : ", ") + (dims[i] == checker::any ? std::string("any") : std::to_string(dims[i]));
  return text + "]";
}

bool empty(const tensor& t) noexcept {
  return std::any_of(t.shape.begin(), t.shape.begin() + std::clamp(t.rank, 0, tensor::rank_max),
                     [](int64_t n) { return n == 0; });
}

/// What is wrong with the strides, or null. The shape has been checked.
const char* stride_problem(const tensor& t, checker::use how) noexcept {
  int64_t inner = 1; // elements that one step of this dimension must clear
  int64_t reach = 1; // elements from the first to the last, both counted
  for (int i = t.rank - 1; i >= 0; --i) {
    const int64_t n = t.shape[static_cast<size_t>(i)];
    const int64_t step = t.stride[static_cast<size_t>(i)];
    if (n <= 1)
      continue;
    if (i == t.rank - 1 && step != 1)
      return "has gaps in its innermost dimension";
    if (how == checker::use::flat && step != inner)
      return "is not contiguous";
    if (step < 0 || (how == checker::use::written && step < inner))
      return "has rows that lie over each other";
    if (step > extent_max / n)
      return "is too large";
    reach += (n - 1) * step;
    if (reach > extent_max)
      return "is too large";
    inner = std::max(inner, reach);
    if (how == checker::use::flat)
      inner = reach;
  }
  return nullptr;
}

} // namespace

std::string shape_text(const tensor& t) {
  return dims_text(t.shape.data(), static_cast<size_t>(std::clamp(t.rank, 0, tensor::rank_max)));
}

checker& checker::fail(const std::string& problem) {
  if (first_.ok())
    first_ = status(code::invalid_argument, std::string(operation_) + ": " + problem);
  return *this;
}

checker& checker::require(bool holds, const char* problem) {
  return holds ? *this : fail(problem);
}

checker& checker::operand(const char* name, const tensor& t, type_set types,
                          std::initializer_list<int64_t> shape, use how) {
  if (!ok())
    return *this;
  const std::string who(name);
  if (t.rank != static_cast<int>(shape.size()))
    return fail(who + (t.data == nullptr && t.rank == 0 ? " is missing"
                                                        : " has rank " + std::to_string(t.rank) +
                                                              ", expected " + std::to_string(shape.size())));
  bool same = true;
  for (size_t i = 0; i < shape.size(); ++i) {
    const int64_t expected = shape.begin()[i];
    same = same && t.shape[i] >= 0 && t.shape[i] <= extent_max && (expected == any || t.shape[i] == expected);
  }
  if (!same)
    return fail(who + " has shape " + shape_text(t) + ", expected " + dims_text(shape.begin(), shape.size()));
  if (size_of(t.type) == 0 || (only(t.type) & types) == 0)
    return fail(who + " has an element type that is not allowed here");
  if (empty(t))
    return *this;
  if (t.data == nullptr)
    return fail(who + " is missing");
  if (reinterpret_cast<uintptr_t>(t.data) % size_of(t.type) != 0)
    return fail(who + " is not aligned to its elements");
  if (const char* problem = stride_problem(t, how))
    return fail(who + " " + problem);
  return *this;
}

checker& checker::optional(const char* name, const tensor& t, type_set types,
                           std::initializer_list<int64_t> shape, use how) {
  return t ? operand(name, t, types, shape, how) : *this;
}

checker& checker::prepared(const char* name, const tensor& t, uint64_t bytes) {
  return operand(name, t, only(dtype::i8), {static_cast<int64_t>(bytes)}, use::flat);
}

checker& checker::workspace(const tensor& t, uint64_t bytes) {
  if (!ok() || bytes == 0)
    return *this;
  if (!t)
    return fail("workspace is missing, " + std::to_string(bytes) + " bytes are needed");
  if (!t.contiguous() || t.bytes() < bytes)
    return fail("workspace has " + std::to_string(t.bytes()) + " bytes, " + std::to_string(bytes) +
                " are needed");
  if (reinterpret_cast<uintptr_t>(t.data) % 64 != 0)
    return fail("workspace is not aligned to 64 bytes");
  return *this;
}

} // namespace neuroshard::kernels

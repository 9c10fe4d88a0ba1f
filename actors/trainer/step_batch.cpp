#include "actors/trainer/step_batch.hpp"

#include <algorithm>
#include <bit>
#include <span>

namespace neuroshard {

namespace {

uint64_t count_labels(const std::vector<int32_t>& labels) {
  return static_cast<uint64_t>(std::count_if(labels.begin(), labels.end(),
                                             [](int32_t label) { return label != text::ignored_label; }));
}

void add_part(step_batch& to, step_part_batch part) {
  part.label_count = count_labels(part.labels);
  to.label_count += part.label_count;
  to.rows += part.rows;
  if (part.label_count > 0)
    to.parts.push_back(std::move(part));
}

step_part_batch empty_part(uint32_t rows, uint32_t seq) {
  step_part_batch part;
  part.rows = rows;
  part.ids.resize(size_t{rows} * seq);
  part.labels.resize(size_t{rows} * seq);
  return part;
}

void hash_integers(kernels::sha256& into, std::span<const int32_t> values) {
  static_assert(std::endian::native == std::endian::little, "integers are hashed as they lie in memory");
  into.update(values.data(), values.size_bytes());
}

} // namespace

uint32_t rows_per_part(uint32_t batch, uint32_t microbatches, uint32_t seq, uint64_t positions_max) {
  const uint32_t even = (batch + std::max(microbatches, 1U) - 1) / std::max(microbatches, 1U);
  const uint64_t fitting = std::max<uint64_t>(1, positions_max / std::max(seq, 1U));
  return static_cast<uint32_t>(std::clamp<uint64_t>(even, 1, fitting));
}

kernels::result<step_batch> draw_batch(const text::data_loader& data, const text::data_cursor& at,
                                       uint64_t step, uint32_t batch, uint32_t seq, uint32_t rows_of_part) {
  step_batch drawn;
  drawn.seq = seq;
  for (uint32_t first = 0; first < batch; first += rows_of_part) {
    auto part = empty_part(std::min(rows_of_part, batch - first), seq);
    NEUROSHARD_TRY(data.rows(at, step, batch, first, part.rows, seq, part.ids, part.labels));
    add_part(drawn, std::move(part));
  }
  return drawn;
}

kernels::digest data_hash_of(const step_batch& batch) {
  kernels::sha256 hash;
  const size_t seq = batch.seq;
  for (const auto& part : batch.parts)
    for (size_t row = 0; row < part.rows; ++row) {
      hash_integers(hash, std::span(part.ids).subspan(row * seq, seq));
      hash_integers(hash, std::span(part.labels).subspan(row * seq, seq));
    }
  return hash.finish();
}

kernels::result<step_batch> heldout_batch(const text::data_loader& data, uint32_t seq,
                                          uint32_t rows_of_part) {
  step_batch drawn;
  drawn.seq = seq;
  for (uint32_t first = 0; first < text::heldout_windows; first += rows_of_part) {
    auto part = empty_part(std::min(rows_of_part, text::heldout_windows - first), seq);
    for (uint32_t row = 0; row < part.rows; ++row) {
      const size_t from = size_t{row} * seq;
      NEUROSHARD_TRY(data.heldout_window(first + row, std::span(part.ids).subspan(from, seq),
                                         std::span(part.labels).subspan(from, seq)));
    }
    add_part(drawn, std::move(part));
  }
  return drawn;
}

tensor_handle integers(std::vector<int32_t> values, int64_t rows, int64_t columns) {
  auto owner = std::make_shared<std::vector<int32_t>>(std::move(values));
  tensor_handle handle;
  handle.view = kernels::make_tensor(owner->data(), kernels::dtype::i32, {rows, columns});
  handle.owner = std::move(owner);
  return handle;
}

} // namespace neuroshard

#include "kernels/core/check.hpp"
#include "kernels/reference/reference.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::kernels::reference {

namespace {

/// The shape letters of one call, and the views of what both directions read.
struct problem {
  int64_t sequences, positions, heads, kv_heads, size;
  float scale;
  elements q, k, v;
  tensor lengths;

  template <class Args>
  explicit problem(const Args& a) noexcept
      : sequences(a.sequences), positions(a.sequences > 0 ? a.q.shape[0] / a.sequences : 0),
        heads(a.q.shape[1]), kv_heads(a.k.shape[1]), size(a.q.shape[2]),
        scale(1.0F / std::sqrt(static_cast<float>(size))), q(a.q), k(a.k), v(a.v), lengths(a.lengths) {}

  int64_t length(int64_t b) const noexcept {
    return lengths ? std::clamp<int64_t>(index_at(lengths, b), 0, positions) : positions;
  }
  int64_t kv_head(int64_t head) const noexcept { return head / (heads / kv_heads); }
  float score(int64_t row, int64_t head, int64_t other_row) const noexcept {
    float sum = 0;
    for (int64_t d = 0; d < size; ++d)
      sum += q.get(row, head, d) * k.get(other_row, kv_head(head), d);
    return sum * scale;
  }
};

/// dk and dv of one kv head, in f32 until all query heads have added to them.
struct kv_gradient {
  float* dk; ///< [S,D]
  float* dv; ///< [S,D]
  float* dq; ///< [D], of one query
};

/// Adds what query i of `head` in sequence b gives to the gradients of the keys and values that it saw, and
/// writes its own.
void query_backward(const attention_backward_args& a, const problem& p, int64_t b, int64_t head, int64_t i,
                    const kv_gradient& into) noexcept {
  const elements dout(a.dout);
  const elements out(a.out);
  const elements dq(a.dq);
  const int64_t first = b * p.positions;
  const int64_t row = first + i;
  const float lse = a.lse.as<float>()[(b * p.heads + head) * p.positions + i];
  float delta = 0; // sum over d of dout out = sum over j of p_j dp_j
  for (int64_t d = 0; d < p.size; ++d)
    delta += dout.get(row, head, d) * out.get(row, head, d);
  std::fill_n(into.dq, p.size, 0.0F);
  for (int64_t j = 0; j <= i; ++j) {
    const float probability = std::exp(p.score(row, head, first + j) - lse);
    float dp = 0;
    for (int64_t d = 0; d < p.size; ++d)
      dp += dout.get(row, head, d) * p.v.get(first + j, p.kv_head(head), d);
    const float ds = probability * (dp - delta) * p.scale;
    for (int64_t d = 0; d < p.size; ++d) {
      into.dq[d] += ds * p.k.get(first + j, p.kv_head(head), d);
      into.dk[j * p.size + d] += ds * p.q.get(row, head, d);
      into.dv[j * p.size + d] += probability * dout.get(row, head, d);
    }
  }
  for (int64_t d = 0; d < p.size; ++d)
    dq.set(row, head, d, into.dq[d]);
}

} // namespace

/// One row of scores and one of output.
uint64_t attention_workspace(void*, const attention_args& a) {
  return static_cast<uint64_t>(problem(a).positions + a.q.shape[2]) * sizeof(float);
}

uint64_t attention_backward_workspace(void*, const attention_backward_args& a) {
  return static_cast<uint64_t>((2 * problem(a).positions + 1) * a.q.shape[2]) * sizeof(float);
}

status attention(void* queue, const attention_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = attention_workspace(queue, a)}));
  const problem p(a);
  const elements out(a.out);
  float* scores = a.workspace.as<float>();
  float* sum = scores + p.positions;
  for (int64_t b = 0; b < p.sequences; ++b)
    for (int64_t head = 0; head < p.heads; ++head)
      for (int64_t i = 0; i < p.positions; ++i) {
        const int64_t first = b * p.positions;
        const int64_t seen = i < p.length(b) ? i + 1 : 0;
        float largest = -std::numeric_limits<float>::infinity();
        for (int64_t j = 0; j < seen; ++j) {
          scores[j] = p.score(first + i, head, first + j);
          largest = std::max(largest, scores[j]);
        }
        float total = 0;
        std::fill_n(sum, p.size, 0.0F);
        for (int64_t j = 0; j < seen; ++j) {
          const float weight = std::exp(scores[j] - largest);
          total += weight;
          for (int64_t d = 0; d < p.size; ++d)
            sum[d] += weight * p.v.get(first + j, p.kv_head(head), d);
        }
        for (int64_t d = 0; d < p.size; ++d)
          out.set(first + i, head, d, seen > 0 ? sum[d] / total : 0.0F);
        if (a.lse)
          a.lse.as<float>()[(b * p.heads + head) * p.positions + i] =
              seen > 0 ? largest + std::log(total) : 0.0F;
      }
  return {};
}

status attention_backward(void* queue, const attention_backward_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = attention_backward_workspace(queue, a)}));
  const problem p(a);
  const elements dq(a.dq);
  const elements dk(a.dk);
  const elements dv(a.dv);
  const int64_t group = p.heads / p.kv_heads;
  float* scratch = a.workspace.as<float>();
  const kv_gradient into{scratch, scratch + p.positions * p.size, scratch + 2 * p.positions * p.size};
  for (int64_t b = 0; b < p.sequences; ++b)
    for (int64_t g = 0; g < p.kv_heads; ++g) {
      std::fill_n(into.dk, 2 * p.positions * p.size, 0.0F);
      for (int64_t head = g * group; head < (g + 1) * group; ++head)
        for (int64_t i = 0; i < p.positions; ++i)
          if (i < p.length(b))
            query_backward(a, p, b, head, i, into);
          else
            for (int64_t d = 0; d < p.size; ++d)
              dq.set(b * p.positions + i, head, d, 0.0F);
      for (int64_t j = 0; j < p.positions; ++j)
        for (int64_t d = 0; d < p.size; ++d) {
          dk.set(b * p.positions + j, g, d, into.dk[j * p.size + d]);
          dv.set(b * p.positions + j, g, d, into.dv[j * p.size + d]);
        }
    }
  return {};
}

} // namespace neuroshard::kernels::reference

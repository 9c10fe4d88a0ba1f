#include "tests/kernels/model/oracle.hpp"

#include <cmath>
#include <limits>

namespace neuroshard::test {

namespace {

using rows = std::vector<std::vector<double>>;

rows norm(const rows& x, const std::vector<double>& gain, double eps) {
  rows out = x;
  for (auto& row : out) {
    double squares = 0;
    for (double v : row)
      squares += v * v;
    const double r = 1 / std::sqrt(squares / static_cast<double>(row.size()) + eps);
    for (size_t i = 0; i < row.size(); ++i)
      row[i] *= r * gain[i];
  }
  return out;
}

rows times(const rows& x, const std::vector<double>& w) {
  rows out;
  for (const auto& row : x) {
    const size_t k = row.size();
    std::vector<double> y(w.size() / k, 0.0);
    for (size_t n = 0; n < y.size(); ++n)
      for (size_t i = 0; i < k; ++i)
        y[n] += row[i] * w[n * k + i];
    out.push_back(std::move(y));
  }
  return out;
}

void add(rows& x, const rows& y) {
  for (size_t t = 0; t < x.size(); ++t)
    for (size_t i = 0; i < x[t].size(); ++i)
      x[t][i] += y[t][i];
}

void rotate(rows& x, const std::vector<double>& positions, size_t head_dim, double base) {
  for (size_t t = 0; t < x.size(); ++t)
    for (size_t i = 0; i < x[t].size(); i += 2) {
      const double pair = static_cast<double>((i % head_dim) / 2);
      const double angle = positions[t] * std::pow(base, -2 * pair / static_cast<double>(head_dim));
      const double a = x[t][i];
      const double b = x[t][i + 1];
      x[t][i] = a * std::cos(angle) - b * std::sin(angle);
      x[t][i + 1] = a * std::sin(angle) + b * std::cos(angle);
    }
}

} // namespace

std::vector<double> oracle::logits(const batch& b) const {
  const auto d = static_cast<size_t>(shape.hidden_dim);
  const auto head_dim = static_cast<size_t>(shape.head_dim());
  const auto group = static_cast<size_t>(shape.num_heads / shape.num_kv_heads);
  const auto heads = static_cast<size_t>(shape.num_heads);
  const auto seq = static_cast<size_t>(b.positions);
  const size_t count = b.ids.size();
  const auto at = [&](const std::string& name) -> const std::vector<double>& { return parameters.at(name); };

  std::vector<double> positions(count);
  for (size_t t = 0; t < count; ++t)
    positions[t] = b.rope_positions.empty() ? static_cast<double>(t % seq) : b.rope_positions[t];
  rows x;
  for (int32_t id : b.ids) {
    const double* row = at("embed.weight").data() + static_cast<size_t>(id) * d;
    x.emplace_back(row, row + d);
  }
  for (int64_t l = 0; l < shape.num_layers; ++l) {
    const std::string p = "layers." + std::to_string(l) + ".";
    const rows a = norm(x, at(p + "attn_norm.weight"), shape.norm_eps_value());
    rows q = times(a, at(p + "attn.q.weight"));
    rows k = times(a, at(p + "attn.k.weight"));
    const rows v = times(a, at(p + "attn.v.weight"));
    rotate(q, positions, head_dim, shape.rope_base_value());
    rotate(k, positions, head_dim, shape.rope_base_value());
    rows attended(count, std::vector<double>(heads * head_dim, 0.0));
    for (size_t t = 0; t < count; ++t) {
      const size_t start = t / seq * seq;
      const size_t valid = b.lengths.empty() ? seq : static_cast<size_t>(b.lengths[t / seq]);
      if (t - start >= valid)
        continue;
      for (size_t h = 0; h < heads; ++h) {
        const size_t kv = h / group * head_dim;
        std::vector<double> weight;
        double sum = 0;
        for (size_t u = start; u <= t; ++u) {
          double dot = 0;
          for (size_t i = 0; i < head_dim; ++i)
            dot += q[t][h * head_dim + i] * k[u][kv + i];
          weight.push_back(std::exp(dot / std::sqrt(static_cast<double>(head_dim))));
          sum += weight.back();
        }
        for (size_t u = start; u <= t; ++u)
          for (size_t i = 0; i < head_dim; ++i)
            attended[t][h * head_dim + i] += weight[u - start] / sum * v[u][kv + i];
      }
    }
    add(x, times(attended, at(p + "attn.o.weight")));
    const rows f = norm(x, at(p + "ffn_norm.weight"), shape.norm_eps_value());
    rows gate = times(f, at(p + "ffn.gate.weight"));
    const rows up = times(f, at(p + "ffn.up.weight"));
    for (size_t t = 0; t < count; ++t)
      for (size_t i = 0; i < gate[t].size(); ++i)
        gate[t][i] = gate[t][i] / (1 + std::exp(-gate[t][i])) * up[t][i];
    add(x, times(gate, at(p + "ffn.down.weight")));
  }
  const rows y = times(norm(x, at("norm.weight"), shape.norm_eps_value()),
                       at(shape.tie_embeddings ? "embed.weight" : "head.weight"));
  std::vector<double> out;
  for (const auto& row : y)
    for (size_t n = 0; n < row.size(); ++n)
      out.push_back(b.valid_vocab > 0 && n >= static_cast<size_t>(b.valid_vocab)
                        ? -std::numeric_limits<double>::infinity()
                        : row[n]);
  return out;
}

double oracle::loss(const batch& b) const {
  const std::vector<double> z = logits(b);
  const auto vocab = static_cast<size_t>(shape.vocab_capacity);
  double sum = 0;
  size_t counted = 0;
  for (size_t t = 0; t < b.labels.size(); ++t) {
    if (b.labels[t] < 0)
      continue;
    double exponentials = 0;
    for (size_t n = 0; n < vocab; ++n)
      exponentials += std::exp(z[t * vocab + n]);
    sum += std::log(exponentials) - z[t * vocab + static_cast<size_t>(b.labels[t])];
    ++counted;
  }
  return counted == 0 ? 0 : sum / static_cast<double>(counted);
}

double oracle::derivative(const batch& b, const std::string& name, size_t index, double step) {
  double& value = parameters.at(name)[index];
  const double kept = value;
  value = kept + step;
  const double above = loss(b);
  value = kept - step;
  const double below = loss(b);
  value = kept;
  return (above - below) / (2 * step);
}

} // namespace neuroshard::test

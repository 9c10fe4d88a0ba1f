#include "tests/kernels/model/stage_support.hpp"

#include <cmath>
#include <fstream>
#include <sstream>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// What make_golden.py wrote.
struct golden {
  architecture shape;
  int64_t sequences = 0, positions = 0;
  double loss = 0;
  std::map<std::pair<int64_t, int64_t>, std::vector<float>> logits;
  struct gradient {
    double norm = 0;
    std::vector<size_t> places;
    std::vector<double> values;
  };
  std::map<std::string, gradient> gradients;
};

golden read_golden() {
  golden g;
  std::ifstream file(NEUROSHARD_MODEL_GOLDEN);
  REQUIRE(file.good());
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::string kind;
    in >> kind;
    if (kind == "shape") {
      in >> g.shape.num_layers >> g.shape.hidden_dim >> g.shape.num_heads >> g.shape.num_kv_heads >>
          g.shape.ffn_dim >> g.shape.vocab_capacity >> g.sequences >> g.positions;
      g.shape.max_seq_len = 64;
    } else if (kind == "loss") {
      in >> g.loss;
    } else if (kind == "logits") {
      int64_t b = 0;
      int64_t s = 0;
      in >> b >> s;
      auto& row = g.logits[{b, s}];
      for (float z = 0; in >> z;)
        row.push_back(z);
    } else if (kind == "gradient") {
      std::string name;
      in >> name;
      auto& gradient = g.gradients[name];
      in >> gradient.norm;
      size_t place = 0;
      char colon = 0;
      for (double value = 0; in >> place >> colon >> value;) {
        gradient.places.push_back(place);
        gradient.values.push_back(value);
      }
    }
  }
  return g;
}

/// The formula of make_golden.py.
std::vector<float> weight(const parameter& p) {
  int64_t offset = 0;
  for (size_t i = 0; i < p.name.size(); ++i)
    offset += p.name[i] * static_cast<int64_t>(i + 1);
  offset %= 1009;
  std::vector<float> values(static_cast<size_t>(p.count));
  for (size_t i = 0; i < values.size(); ++i) {
    const double scaled =
        std::sin((static_cast<double>(i) + 1) * 1.6180339887 + static_cast<double>(offset) * 0.7310585786) *
        43758.5453;
    const double noise = scaled - std::floor(scaled) - 0.5;
    values[i] = static_cast<float>(p.shape.size() == 1 ? 1 + 0.4 * noise : 0.4 * noise);
  }
  return values;
}

std::unique_ptr<stage> golden_stage(const std::string& backend, const golden& g, dtype compute) {
  auto s = make_stage(open_device(backend), g.shape, whole_options(g.shape, compute));
  for (const unit& u : s->units())
    for (const parameter& p : u.parameters)
      REQUIRE(s->write(p.name, parameter_part::weight, 0, weight(p)).ok());
  REQUIRE(s->refresh_weights().run().ok());
  return s;
}

} // namespace

TEST_CASE("logits, loss and gradients equal those of PyTorch") {
  const golden g = read_golden();
  REQUIRE(g.logits.size() == 6);
  REQUIRE(g.gradients.size() == 21);
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      const bool f32 = compute == dtype::f32;
      INFO((backend + (f32 ? " f32" : " bf16")));
      const auto s = golden_stage(backend, g, compute);
      train_input in;
      in.key = {"golden", 1, 0};
      in.sequences = g.sequences;
      in.positions_per_sequence = g.positions;
      for (int64_t b = 0; b < g.sequences; ++b)
        for (int64_t t = 0; t < g.positions; ++t) {
          in.token_ids.push_back(static_cast<int32_t>((7 * b + 13 * t + t * t) % g.shape.vocab_capacity));
          in.labels.push_back(static_cast<int32_t>((5 * b + 11 * t + 3) % g.shape.vocab_capacity));
        }
      in.labels[4] = -100;
      const auto out = s->forward_train(in).run();
      REQUIRE(out.ok());
      CHECK(out->label_count == 23);
      CHECK(std::abs(out->loss - g.loss) < (f32 ? 1e-5 : 2e-2));
      for (const auto& [name, expected] : g.gradients) {
        const auto ours = read_all(*s, name, parameter_part::gradient);
        std::vector<float> picked;
        double squares = 0;
        for (size_t place : expected.places)
          picked.push_back(ours.at(place));
        for (float v : ours)
          squares += double{v} * v;
        INFO(name << " " << relative_l2(picked, expected.values));
        CHECK(relative_l2(picked, expected.values) < (f32 ? 1e-5 : 3e-2));
        CHECK(std::abs(std::sqrt(squares) / expected.norm - 1) < (f32 ? 1e-5 : 3e-2));
      }
      for (const auto& [place, expected] : g.logits) {
        score_input one;
        one.positions_per_sequence = place.second + 1;
        const auto begin = in.token_ids.begin() + place.first * g.positions;
        one.token_ids.assign(begin, begin + place.second + 1);
        const auto scored = s->score(one).run();
        REQUIRE(scored.ok());
        const std::span<const float> logits(scored->logits.view.as<const float>(), expected.size());
        CHECK(logit_difference(logits, expected) < (f32 ? 1e-4 : 2e-2));
      }
    }
}

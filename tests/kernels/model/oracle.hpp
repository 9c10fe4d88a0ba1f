#pragma once

#include "kernels/model/architecture.hpp"
#include "kernels/model/parameters.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace neuroshard::test {

/// NeuroLLM in double precision, written straight from the formulas of model.md section 2 with no thought of
/// speed: what the stage is compared with. Derivatives come from central differences of its loss.
struct oracle {
  model::architecture shape;
  std::map<std::string, std::vector<double>> parameters;

  struct batch {
    int64_t sequences = 1;
    int64_t positions = 1;
    std::vector<int32_t> ids, labels;
    std::vector<int32_t> lengths;        ///< empty: all
    std::vector<int32_t> rope_positions; ///< empty: 0 ... S-1
    int64_t valid_vocab = 0;
  };
  /// [rows, V]; columns from valid_vocab on hold -infinity.
  std::vector<double> logits(const batch& b) const;
  /// Mean cross-entropy over labels != -100.
  double loss(const batch& b) const;
  /// d loss / d parameter[index].
  double derivative(const batch& b, const std::string& name, size_t index, double step = 1e-5);
};

} // namespace neuroshard::test

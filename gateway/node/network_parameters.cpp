#include "gateway/node/network_parameters.hpp"

#include <fmt/format.h>

namespace neuroshard {

std::string network_parameters(const node_config& c) {
  const auto& t = c.training;
  return fmt::format(R"({{"aggregation":"{}","batch_size":{},"compression":"{}","decay_steps":{},)"
                     R"("diloco_steps":{},"learning_rate":{},"min_cosine":{},"outer_lr":{},)"
                     R"("outer_momentum":{},"seq_len":{},"top_k_ratio":{},"trim_fraction":{},)"
                     R"("warmup_steps":{}}})",
                     t.aggregation, t.batch_size, t.compression, t.decay_steps, t.diloco_steps,
                     t.learning_rate, t.min_cosine, t.outer_lr, t.outer_momentum, t.seq_len, t.top_k_ratio,
                     t.trim_fraction, t.warmup_steps);
}

} // namespace neuroshard

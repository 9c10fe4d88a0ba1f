#pragma once

#include "gateway/config/node_config.hpp"

#include <caf/expected.hpp>

#include <string>
#include <string_view>

/// The network parameters of spec/training.md section 3: what all nodes of a cohort have in common. They
/// travel with the layer map, so they are a stranger's text.
namespace neuroshard {

/// As canonical JSON: keys without "training.", ascending, no blanks. `tokenizer`: its hash in hex, which is
/// told as one more member, since text must become the same tokens everywhere; empty: it is not known yet.
std::string network_parameters(const node_config& c, std::string_view tokenizer = {});
/// The hash of the network's tokenizer, 64 hex digits; empty where they do not tell one.
std::string tokenizer_in(std::string_view parameters);

/// The configuration of a node that joins a network with these parameters. Keys that are missing stay, others
/// are passed over; `batch_size` is an upper bound, so a smaller one of the node stays. Refusal:
/// invalid_request naming the key that no configuration of this node may have.
caf::expected<node_config> with_network_parameters(const node_config& own, const machine_facts& machine,
                                                   std::string_view parameters);

} // namespace neuroshard

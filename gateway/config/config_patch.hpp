#pragma once

#include "gateway/config/node_config.hpp"
#include "gateway/config/schema.hpp"

#include <caf/expected.hpp>

#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace neuroshard {

/// PATCH /config as plain logic (http-api.md section 7). The HTTP handler flattens the JSON body to dotted
/// names and hands it in.

/// A JSON number by its text, so that 16, 16.0 and 1.6e1 are told apart from 16.5 without a double in
/// between.
struct json_number {
  std::string text;
};
/// A leaf of the body. monostate: null, an array or an empty object where a value should be.
using patch_leaf = std::variant<std::monostate, bool, json_number, std::string>;
/// Dotted name and leaf, in the order of the body, names as sent ("training.batch_size",
/// "resources.max_memory_gb").
using patch_body = std::vector<std::pair<std::string, patch_leaf>>;

/// A valid patch: what to set and what to answer. Nothing has been changed yet.
struct patch_plan {
  std::vector<std::pair<const key_spec*, config_value>> changes;
  std::vector<std::string> updated; ///< names as sent
  bool restart_required = false;
  /// Sets the changes in `c`; those that wait for a restart too, as GET /config shows what is configured.
  void apply(node_config& c) const;
};

/// All or nothing. Unknown name: invalid_request; known but immutable, or a network parameter while
/// `in_cohort`: forbidden; wrong type or out of range: invalid_request with `field`, `reason` and
/// `min`/`max`. `current` is the running configuration, against which rules between keys are checked. A patch
/// of nothing is a plan of nothing.
caf::expected<patch_plan> plan_patch(const patch_body& body, const node_config& current,
                                     const machine_facts& machine, bool in_cohort);

} // namespace neuroshard

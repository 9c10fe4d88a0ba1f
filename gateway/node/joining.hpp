#pragma once

#include "actors/peer_manager/placement.hpp"
#include "actors/supervisor/supervisor_actor.hpp"
#include "gateway/config/data_dir.hpp"
#include "gateway/node/live_settings.hpp"
#include "kernels/model/architecture.hpp"
#include "kernels/text/tokenizer.hpp"

#include <caf/actor_system.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace neuroshard {

/// What a node takes over from the network it joins: the training parameters at once, architecture and
/// tokenizer by starting the program again, as both make another model of it (spec/training.md section 3,
/// network.md section 3). On the thread of main.
class joining {
public:
  struct parts_of {
    caf::actor_system* system = nullptr;
    node_actors fronts;
    std::shared_ptr<live_settings> settings;
    std::string data_dir;
    model::architecture shape;
    time_source_ptr time;
    std::function<void(std::function<void()>)> post;         ///< to the thread of main; any thread
    std::function<void(const std::string& why)> start_again; ///< a graceful stop, then the program anew
  };
  explicit joining(parts_of parts) : parts_(std::move(parts)) {}

  enum class verdict : uint8_t {
    goes_on,
    other_parameters, ///< what was made from the configuration is to be made anew
    stays_out,        ///< the map is of another model
  };
  verdict heard(const placement_changed& what);
  /// The node's own tokenizer, once its data is prepared. It may become another where the corpus is here to
  /// be read with it, and its file is the node's own.
  void tokenizer_ready(const text::tokenizer& tokens, const node_config& c);
  /// About every 200 ms: asks again where nobody had the tokenizer.
  void tick();

private:
  void another_architecture(const placement_changed& what);
  void compare_tokenizers();
  void tokenizer_came(const std::string& hash, const caf::expected<std::string>& text);

  parts_of parts_;
  std::string wanted_; ///< hash of the network's tokenizer, hex; empty: unknown, or there is no network
  std::string own_;    ///< empty: not ready
  bool replaceable_ = false;
  bool asking_ = false;
  int64_t ask_us_ = 0;      ///< not before
  int64_t patience_us_ = 0; ///< doubled with each failure
};

} // namespace neuroshard

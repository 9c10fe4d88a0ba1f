#pragma once

#include "actors/supervisor/supervisor_actor.hpp"
#include "gateway/config/config_patch.hpp"
#include "gateway/config/data_dir.hpp"
#include "gateway/config/load_config.hpp"
#include "gateway/config/logging.hpp"
#include "gateway/http/node_services.hpp"
#include "gateway/http/server.hpp"

#include <functional>
#include <memory>
#include <mutex>
#include <string_view>

namespace neuroshard {

/// The configuration in force, and the two ways it changes while the node runs: PATCH /config (persisted to
/// config.json) and SIGHUP (the file read again). Changes happen on the thread of main; reading is for any
/// thread.
class live_settings {
public:
  live_settings(node_config start, machine_facts machine, std::string config_json_path, config_json stored);

  std::shared_ptr<const node_config> current() const;
  /// The network parameters in force as the layer map tells them. Any thread.
  std::string network_parameters() const;
  /// Hash of the node's tokenizer, hex. Any thread.
  void tokenizer(std::string hash);

  /// Who is told of changes; set once all parts exist.
  struct listeners {
    node_actors actors;
    logging* log = nullptr;
    http::server* server = nullptr;
  };
  void connect(listeners to) { to_ = std::move(to); }

  /// On the thread of main. All or nothing; what it answers is on disk.
  caf::expected<http::patch_outcome> patch(const patch_body& body);
  /// On the thread of main: takes over what may change while running, and logs the rest.
  void reload(const start_result<loaded_config>& fresh);
  /// On the thread of main: takes over the network's parameters, which are not persisted. Actors that are
  /// made from them are to be made anew by the caller. False: they are what they were.
  bool join_network(std::string_view parameters);
  /// On the thread of main: whether other nodes share the model. While they do, nobody changes those.
  void in_cohort(bool with_others) { in_cohort_ = with_others; }
  bool in_cohort() const { return in_cohort_; }

private:
  void replace(node_config next);
  void tell(const node_config& before, const node_config& after);

  mutable std::mutex guard_;
  std::shared_ptr<const node_config> current_;
  std::string tokenizer_; ///< empty: not known yet
  machine_facts machine_;
  std::string path_;
  config_json stored_;
  listeners to_;
  bool in_cohort_ = false;
};

/// The limits of the configuration as the rate limiter takes them.
rate_limits limits_of(const node_config& c);
/// The optimizer's settings likewise.
optimizer_settings optimizer_of(const node_config& c);

} // namespace neuroshard

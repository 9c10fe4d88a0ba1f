#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace neuroshard {

/// What a person sees on the terminal while the node works. Pure rendering functions, and a small class that
/// decides when to write; the caller feeds structs, from any thread. Knows no actor.

struct console_progress {
  std::string status = "starting"; ///< as in GET /status
  std::string detail;              ///< what is being prepared and how far it is; shown on a terminal only
  int64_t step = 0;                ///< inner steps done
  int64_t last_step = 0;           ///< end of the learning-rate schedule; 0 = unknown
  std::optional<double> loss;      ///< training, nats
  std::optional<double> validation_loss;
  int64_t validation_step =
      0; ///< step at which it was measured; a new one prints a line where there is no terminal
  double tokens_per_second = 0;
  std::optional<int64_t> eta_s; ///< to last_step
  int64_t peers = 0;
};

struct console_banner {
  std::string version;
  std::string node_id, address; ///< of the node and the wallet
  std::string url;              ///< "http://127.0.0.1:8000"
  std::string grpc_address;     ///< "0.0.0.0:9000", or empty
  std::string data_dir;
  std::string config_json; ///< its path: the token is read from there by the line to try
  std::string wallet_file; ///< of a wallet made or kept here; empty when a token was given
  std::string device;      ///< "cpu, 2 threads, 11,000 MB"
  std::string model;       ///< "pico, 8.0 M parameters, bf16"
  std::string corpus;      ///< what it trains on, or empty
  std::string log_file;
  bool training = true;
  bool tls = false;
};

/// "step 1,200 of 3,000 | loss 4.812 | validation 4.903 | 3,912 tok/s | ETA 8 min | 0 peers", cut to `width`
/// columns (0 = no limit).
std::string render_progress(const console_progress& p, size_t width);
/// Several lines, each ended by a line break: what runs, where, and the curl line to try. Holds no secret.
std::string render_banner(const console_banner& b);
/// The shell line that asks this node for text, reading the token out of config.json instead of showing it.
std::string render_curl_line(const console_banner& b);
/// Sample text for a terminal: control characters and invalid UTF-8 replaced, wrapped at `width`, at most 8
/// lines.
std::string render_sample(int64_t step, std::string_view text, size_t width);
/// The 12 words, numbered, with what to do with them. Secret: for a terminal only, once.
std::string render_words(std::string_view words);
/// "45 s", "12 min", "3 h 20 min", "2 d 4 h".
std::string render_duration(int64_t seconds);
/// "1,234,567".
std::string render_count(int64_t n);

class console {
public:
  struct options {
    bool terminal = false; ///< stdout is one; decides between one updating line and plain lines
    bool quiet = false;    ///< only lines given to `line` and `block`
    size_t width = 80;     ///< 0 = ask the terminal each time
    int64_t redraw_ms = 200;
    int64_t plain_ms = 10'000;
    std::function<void(std::string_view)> write; ///< to stdout, unbuffered
    std::function<int64_t()> now_ms;             ///< monotonic
  };
  /// Reads the terminal; stdout and the machine's clock.
  static options for_stdout(bool quiet);

  explicit console(options how);
  /// Ends the updating line.
  ~console();

  /// New figures. On a terminal the line is redrawn at most every `redraw_ms`; else a line is written at most
  /// every `plain_ms`, and at once when the status changes or the validation loss is new.
  void progress(const console_progress& p);
  /// A line of its own, above the updating line. Log lines come here too.
  void line(std::string_view text);
  /// Finished text of several lines (banner, sample).
  void block(std::string_view text);
  /// Ends the updating line; nothing is redrawn afterwards.
  void finish();

private:
  void clear_locked();
  void draw_locked();
  size_t width_locked() const;

  std::mutex mutex_;
  options how_;
  console_progress last_;
  bool drawn_ = false;
  bool any_ = false;
  bool finished_ = false;
  int64_t drawn_ms_ = 0;
};

} // namespace neuroshard

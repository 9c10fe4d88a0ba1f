#include "gateway/config/console.hpp"

#include <fmt/core.h>

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace neuroshard {

namespace {

/// Length of the well-formed UTF-8 sequence at the front, 0 when there is none.
size_t sequence_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80)
    return 1;
  const size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                        : first >= 0xe0 && first <= 0xef ? 3
                        : first >= 0xf0 && first <= 0xf4 ? 4
                                                         : 0;
  if (length == 0 || text.size() < length)
    return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80)
      return 0;
  // Overlong forms, surrogates and what lies beyond U+10FFFF.
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
      (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f))
    return 0;
  // C1 controls move cursors on some terminals.
  if (first == 0xc2 && byte(1) < 0xa0)
    return 0;
  return length;
}

/// One column per character, which is right for the text a model of English makes.
std::string cut(const std::string& text, size_t width) {
  if (width == 0 || text.size() <= width)
    return text;
  return text.substr(0, width);
}

std::string quoted_for_shell(const std::string& text) {
  std::string out = "'";
  for (const char ch : text)
    out += ch == '\'' ? std::string("'\\''") : std::string(1, ch);
  return out + "'";
}

} // namespace

std::string render_count(int64_t n) {
  std::string digits = fmt::format("{}", n < 0 ? -n : n);
  for (size_t at = digits.size(); at > 3; at -= 3)
    digits.insert(at - 3, ",");
  return fmt::format("{}{}", n < 0 ? "-" : "", digits);
}

std::string render_duration(int64_t seconds) {
  seconds = std::max<int64_t>(0, seconds);
  if (seconds < 60)
    return fmt::format("{} s", seconds);
  const int64_t minutes = seconds / 60;
  if (minutes < 60)
    return fmt::format("{} min", minutes);
  const int64_t hours = minutes / 60;
  if (hours < 48)
    return minutes % 60 == 0 ? fmt::format("{} h", hours) : fmt::format("{} h {} min", hours, minutes % 60);
  return hours % 24 == 0 ? fmt::format("{} d", hours / 24) : fmt::format("{} d {} h", hours / 24, hours % 24);
}

std::string render_progress(const console_progress& p, size_t width) {
  // What matters most comes first: a narrow terminal cuts the end.
  std::vector<std::string> parts;
  if (p.status != "training")
    parts.push_back(p.detail.empty() ? p.status : fmt::format("{} ({})", p.status, p.detail));
  if (p.last_step > 0 && p.step <= p.last_step)
    parts.push_back(fmt::format("step {} of {}", render_count(p.step), render_count(p.last_step)));
  else
    parts.push_back(fmt::format("step {}", render_count(p.step)));
  if (p.loss)
    parts.push_back(fmt::format("loss {:.3f}", *p.loss));
  if (p.validation_loss)
    parts.push_back(fmt::format("validation {:.3f}", *p.validation_loss));
  if (p.status == "training") {
    parts.push_back(fmt::format(
        "{} tok/s", render_count(static_cast<int64_t>(std::clamp(p.tokens_per_second, 0.0, 1e15)))));
    if (p.eta_s)
      parts.push_back("ETA " + render_duration(*p.eta_s));
  }
  parts.push_back(p.peers == 1 ? "1 peer" : fmt::format("{} peers", render_count(p.peers)));
  std::string line;
  for (const std::string& part : parts)
    line += (line.empty() ? "" : " | ") + part;
  return cut(line, width);
}

std::string render_curl_line(const console_banner& b) {
  const std::string sed = R"_(sed -n 's/^ *"token": *"\(.*\)",*$/\1/p')_";
  return fmt::format("curl -s{} {}/api/v1/inference -H \"Authorization: Bearer $({} {})\" "
                     "-H 'Content-Type: application/json' "
                     "-d '{{\"prompt\": \"In the beginning\", \"max_tokens\": 60}}'",
                     b.tls ? "k" : "", b.url, sed, quoted_for_shell(b.config_json));
}

std::string render_banner(const console_banner& b) {
  std::string out = fmt::format("NeuroShard {}\n", b.version);
  const auto row = [&](std::string_view name, const std::string& value) {
    if (!value.empty())
      out += fmt::format("  {:<9} {}\n", name, value);
  };
  row("API", b.url.empty() ? std::string() : b.url + "/api/v1");
  row("peers", b.grpc_address);
  row("node", b.node_id);
  row("wallet", b.wallet_file.empty() ? b.address : fmt::format("{}, kept in {}", b.address, b.wallet_file));
  row("data", b.data_dir);
  row("device", b.device);
  row("model", b.model);
  row(b.training ? "trains on" : "corpus",
      b.corpus.empty() && b.training ? std::string("nothing: no corpus is given") : b.corpus);
  row("log", b.log_file);
  out += "\nAsk it for text (the command reads your token from config.json; never show that file to "
         "others):\n\n  ";
  out += render_curl_line(b);
  out += "\n\nIts first answers are noise; they get better as the loss falls. Ctrl-C stops the node and "
         "keeps its work.\n\n";
  return out;
}

std::string render_sample(int64_t step, std::string_view text, size_t width) {
  constexpr size_t lines_max = 8;
  width = width == 0 ? 78 : std::max<size_t>(width, 24) - 2;
  std::string out = fmt::format("  sample at step {}:\n", render_count(step));
  std::string line;
  size_t columns = 0;
  size_t lines = 0;
  const auto end_line = [&] {
    out += "    " + line + "\n";
    line.clear();
    columns = 0;
    ++lines;
  };
  while (!text.empty() && lines < lines_max) {
    const size_t length = sequence_length(text);
    const std::string_view character = length == 0 ? std::string_view("?") : text.substr(0, length);
    text.remove_prefix(std::max<size_t>(1, length));
    if (character == "\n") {
      if (!line.empty())
        end_line();
      continue;
    }
    const bool control = static_cast<unsigned char>(character[0]) < 0x20 || character[0] == 0x7f;
    line += control ? std::string_view(" ") : character;
    if (++columns + 4 < width)
      continue;
    // Wrap at the last blank, unless the line has none worth it.
    const size_t blank = line.rfind(' ');
    std::string rest;
    if (blank != std::string::npos && blank > line.size() / 2) {
      rest = line.substr(blank + 1);
      line.resize(blank);
    }
    end_line();
    line = rest;
    columns = rest.size();
  }
  if (!line.empty() && lines < lines_max)
    end_line();
  return out;
}

std::string render_words(std::string_view words) {
  std::string out =
      "\nA new wallet was made. These 12 words are its only backup; they are shown once and stored nowhere.\n"
      "Write them down and keep them from others: whoever has them has the wallet.\n\n";
  size_t number = 0;
  while (!words.empty()) {
    const size_t blank = std::min(words.find(' '), words.size());
    const std::string_view word = words.substr(0, blank);
    words.remove_prefix(std::min(blank + 1, words.size()));
    if (word.empty())
      continue;
    ++number;
    out += fmt::format("  {:>2}. {:<10}{}", number, word, number % 4 == 0 ? "\n" : "");
  }
  return out + (number % 4 == 0 ? "\n" : "\n\n");
}

console::options console::for_stdout(bool quiet) {
  options how;
  const char* term = std::getenv("TERM");
  how.terminal = ::isatty(STDOUT_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
  how.quiet = quiet;
  how.width = 0;
  how.write = [](std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
      if (n <= 0)
        return; // A closed terminal does not stop the node.
      text.remove_prefix(static_cast<size_t>(n));
    }
  };
  how.now_ms = [] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  return how;
}

console::console(options how) : how_(std::move(how)) {}

console::~console() {
  finish();
}

size_t console::width_locked() const {
  if (how_.width != 0)
    return how_.width;
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    return size.ws_col;
  return 80;
}

void console::clear_locked() {
  if (drawn_)
    how_.write("\r\x1b[K");
  drawn_ = false;
}

void console::draw_locked() {
  // One column free: a full last column makes some terminals wrap.
  how_.write("\r\x1b[K" + render_progress(last_, width_locked() - 1));
  drawn_ = true;
}

void console::progress(const console_progress& p) {
  const std::lock_guard guard(mutex_);
  if (finished_ || how_.quiet)
    return;
  const int64_t now = how_.now_ms();
  const bool news =
      !any_ || p.status != last_.status ||
      (p.validation_loss && (!last_.validation_loss || p.validation_step != last_.validation_step));
  const bool due = now - drawn_ms_ >= (how_.terminal ? how_.redraw_ms : how_.plain_ms);
  // Without a terminal a node that does nothing writes nothing.
  const bool moved = how_.terminal || p.step != last_.step;
  last_ = p;
  if (!how_.terminal)
    last_.detail.clear(); // It changes all the time, and every line would stay.
  any_ = true;
  if (!news && !(due && moved))
    return;
  drawn_ms_ = now;
  if (how_.terminal)
    draw_locked();
  else
    how_.write(render_progress(last_, 0) + "\n");
}

void console::line(std::string_view text) {
  block(std::string(text) + "\n");
}

void console::block(std::string_view text) {
  const std::lock_guard guard(mutex_);
  const bool redraw = drawn_;
  clear_locked();
  how_.write(text);
  if (redraw && !finished_)
    draw_locked();
}

void console::finish() {
  const std::lock_guard guard(mutex_);
  if (drawn_)
    how_.write("\n");
  drawn_ = false;
  finished_ = true;
}

} // namespace neuroshard
